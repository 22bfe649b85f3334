"""Packed weights in a folder that transformers and vLLM load: the format "pack-quantized" of compressed-tensors.

Of a linear map ``NAME`` the file holds ``NAME.weight_packed`` int32 [out, in * bits / 32], whose word i of a row has the
codes 32 / bits * i and up, the first in its lowest bits, each with 2^(bits-1) added; ``NAME.weight_scale`` [out, in / group]
and ``NAME.weight_shape``. transformers needs the package compressed-tensors to read it, and laconic none to write it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Packed:
    """One matrix: codes int8 [out, in], and steps [out, in / group]."""

    codes: Tensor
    steps: Tensor
    bits: int

    @property
    def nbytes(self) -> int:
        """Bytes of packed codes, and of steps in bfloat16."""
        return self.codes.numel() * self.bits // 8 + self.steps.numel() * 2

    def weights(self) -> Tensor:
        """The numbers that it stands for, fp32 [out, in]."""
        groups = self.codes.float().unflatten(-1, (self.steps.shape[-1], -1))
        return (groups * self.steps[..., None].float()).flatten(-2)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """What is stored of the matrix called `name`."""
        return {
            f"{name}.weight_packed": words(self.codes, self.bits),
            f"{name}.weight_scale": self.steps.to(torch.bfloat16),
            f"{name}.weight_shape": torch.tensor(self.codes.shape, dtype=torch.int64),
        }


def words(codes: Tensor, bits: int) -> Tensor:
    """Codes [out, in] -> int32 [out, ceil(in * bits / 32)]."""
    each = 32 // bits
    shifted = codes.to(torch.int64) + 2 ** (bits - 1)
    missing = -codes.shape[1] % each
    shifted = torch.nn.functional.pad(shifted, (0, missing)).unflatten(-1, (-1, each))
    packed = (shifted << (bits * torch.arange(each, device=codes.device))).sum(-1)
    return torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32)


def save_packed(model: PreTrainedModel, packed: Mapping[str, Packed], bits: int, group: int, folder: Path) -> None:
    """Save `model` with these maps packed; everything else as it is."""
    state = dict(model.state_dict())
    for name, matrix in packed.items():
        del state[f"{name}.weight"]
        state |= matrix.tensors(name)
    model.save_pretrained(folder, state_dict=state)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"quantization_config": _config(model, packed, bits, group)}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _config(model: PreTrainedModel, packed: Mapping[str, Packed], bits: int, group: int) -> dict[str, Any]:
    weights = {
        "num_bits": bits,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": group,
        "dynamic": False,
    }
    linears = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": [name for name in linears if name not in packed],
    }

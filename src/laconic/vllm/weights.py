"""Which weights keys and values come from, as a hash that both transformers' model and a checkpoint's files give.

vLLM fuses and renames what it loads, so its model has no fingerprint of laconic's. The attention projections of the decoder
are named by layer in both, and they decide what a key is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

_SAMPLE = 256
_NAME = re.compile(r"(?<![a-z_])layers\.\d+\.self_attn\.\w+\.weight$")
_OTHER = ("vision", "audio", "encoder.layers")


def of_model(stack: nn.Module) -> str:
    """The hash of a decoder's attention projections."""
    return _hash((name, weight.detach()) for name, weight in stack.named_parameters())


def of_folder(folder: str | Path) -> str | None:
    """The same of a checkpoint in safetensors files; None where there are none, or no such tensors in them."""
    found: dict[str, Tensor] = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names: Any = file.keys()
            found |= {name: file.get_tensor(name) for name in names if _own(name)}
    return _hash(found.items()) if found else None


def _own(name: str) -> bool:
    return _NAME.search(name) is not None and not any(other in name for other in _OTHER)


def _hash(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Up to 256 evenly spaced numbers of every projection, rounded to bf16, by its name from `layers` on."""
    digest = hashlib.sha256()
    for name, weight in sorted((name[name.rindex("layers.") :], weight) for name, weight in tensors if _own(name)):
        flat = weight.flatten()
        some = flat[:: max(1, flat.numel() // _SAMPLE)][:_SAMPLE].to("cpu", torch.bfloat16)
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(some.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:32]

"""Optimizers of the vision testbed's training and their state on disk: safetensors and JSON, nothing is pickled."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

TENSORS, NUMBERS = "optimizer.safetensors", "trainer.json"


def build_optimizers(
    matrices: Iterable[nn.Parameter], others: Iterable[nn.Parameter], muon_lr: float, lr: float
) -> list[torch.optim.Optimizer]:
    """Muon for the weight ``matrices`` of layers, AdamW for the ``others``; each group remembers its ``base_lr``."""
    rule: dict[str, Any] = {"adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.01, "momentum": 0.95}
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(list(matrices), lr=muon_lr, **rule),
        torch.optim.AdamW(list(others), lr=lr, betas=(0.9, 0.98), weight_decay=0.01),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers


def save_state(folder: Path, optimizers: list[torch.optim.Optimizer], state: dict[str, Any]) -> None:
    """Write the optimizers' state and ``state`` (JSON values) into ``folder``."""
    tensors: dict[str, Tensor] = {}
    groups: list[Any] = []
    for i, optimizer in enumerate(optimizers):
        packed = optimizer.state_dict()
        groups.append(packed["param_groups"])
        for key, entry in packed["state"].items():
            tensors |= {f"{i}.{key}.{name}": torch.as_tensor(value).contiguous() for name, value in entry.items()}
    save_file(tensors, folder / TENSORS)
    (folder / NUMBERS).write_text(json.dumps({"state": state, "groups": groups}))


def load_state(folder: Path, optimizers: list[torch.optim.Optimizer]) -> dict[str, Any]:
    """Restore what :func:`save_state` wrote; returns its ``state``."""
    saved: dict[str, Any] = json.loads((folder / NUMBERS).read_text())
    entries: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for name, tensor in load_file(folder / TENSORS).items():
        i, key, field = name.split(".", 2)
        entries[int(i)].setdefault(int(key), {})[field] = tensor
    for optimizer, entry, groups in zip(optimizers, entries, saved["groups"], strict=True):
        optimizer.load_state_dict({"state": entry, "param_groups": groups})
    state: dict[str, Any] = saved["state"]
    return state

"""Optimizers of the testbed's trainings."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


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

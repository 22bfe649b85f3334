"""Optimizers of the testbed's trainings."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def build_optimizers(
    matrices: Iterable[nn.Parameter], others: Iterable[nn.Parameter], muon_lr: float, lr: float, exact: bool = False
) -> list[torch.optim.Optimizer]:
    """Muon for the weight ``matrices`` of layers, AdamW for the ``others``; each group remembers its ``base_lr``.

    Args:
        exact: Muon in fp32, which is several times as fast as torch's on a CPU without bfloat16 arithmetic.
    """
    rule: dict[str, Any] = {"weight_decay": 0.01, "momentum": 0.95}
    muon: torch.optim.Optimizer
    if exact:
        muon = ExactMuon(list(matrices), lr=muon_lr, **rule)
    else:
        muon = torch.optim.Muon(list(matrices), lr=muon_lr, adjust_lr_fn="match_rms_adamw", **rule)
    optimizers: list[torch.optim.Optimizer] = [
        muon,
        torch.optim.AdamW(list(others), lr=lr, betas=(0.9, 0.98), weight_decay=0.01),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers


class ExactMuon(torch.optim.Optimizer):
    """Muon with Nesterov momentum, in the matrices' own precision, all matrices of one shape together.

    The rule of `torch.optim.Muon` with ``adjust_lr_fn="match_rms_adamw"``, which makes gradients orthogonal in bfloat16.
    """

    def __init__(self, matrices: list[nn.Parameter], lr: float, momentum: float, weight_decay: float):
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    shapes[matrix.shape].append(matrix)
            for shape, matrices in shapes.items():
                updates = orthogonal(torch.stack([self._moved(x, group["momentum"]) for x in matrices]))
                for matrix, update in zip(matrices, updates, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(update, alpha=-group["lr"] * 0.2 * max(shape) ** 0.5)

    def _moved(self, matrix: nn.Parameter, momentum: float) -> Tensor:
        grad = matrix.grad
        assert grad is not None
        mean = self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix))
        mean.lerp_(grad, 1 - momentum)
        return grad.lerp(mean, momentum)


def orthogonal(x: Tensor) -> Tensor:
    """Matrices [..., n, m] with all singular values moved towards 1, by five steps of Newton and Schulz."""
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x

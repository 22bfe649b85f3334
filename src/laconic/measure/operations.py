"""FLOPs of torch operations, counted as they run: torch's own formulas, and those of operations that torch leaves out."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Formula = Callable[..., int]
aten = torch.ops.aten


def _attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, causal: bool = False, **_: Any) -> int:
    """Visible pairs alone, as everywhere in laconic; torch's formulas for GPUs count a causal square whole."""
    (b, h, t, d), n = q.shape, k.shape[2]
    pairs = t * (t + 1) // 2 if causal else t * n
    return 2 * b * h * pairs * (d + v.shape[-1])


def _cholesky(a: Tensor, *_: Any, **__: Any) -> int:
    return a.numel() * a.shape[-1] // 3


def _cholesky_solve(b: Tensor, *_: Any, **__: Any) -> int:
    """Forward and backward substitution of b [..., n, k]."""
    return 2 * b.numel() * b.shape[-2]


def _solve(a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    """By LU: a [..., n, n], b [..., n, k]."""
    return 2 * a.numel() * a.shape[-1] // 3 + 2 * b.numel() * a.shape[-1]


def _qr(a: Tensor, *_: Any, **__: Any) -> int:
    """By reflections, which are then multiplied to Q: a [..., m, n]."""
    least, most = sorted(a.shape[-2:])
    return prod(a.shape[:-2]) * (4 * most * least**2 - 4 * least**3 // 3)


FORMULAS: dict[Any, Formula] = {
    **flop_registry,
    aten.mv: lambda matrix, vector, **_: 2 * matrix.numel(),
    aten.dot: lambda a, b, **_: 2 * a.numel(),
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._cdist_forward: lambda a, b, *_, **__: 3 * a.numel() * b.shape[-2],  # a difference, its square, and their sum
    aten.linalg_cholesky_ex: _cholesky,
    aten.cholesky_solve: _cholesky_solve,
    aten._linalg_solve_ex: _solve,
    aten.linalg_qr: _qr,
}
"""Operation -> FLOPs from its arguments. What is not here costs nothing: like `measure.cost`, this leaves out what is done
number by number."""


class OperationCounter(TorchDispatchMode):
    """Adds up, in `flops`, what the operations of this thread take while it is open.

    torch's `FlopCounterMode` tracks modules, too, by hooks on all modules of all threads; this does not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        formula = FORMULAS.get(func.overloadpacket)
        if formula is not None:
            out = func(*args, **kwargs)
            self.flops += formula(*args, **kwargs, out_val=out)
            return out
        if func not in _WHOLE:  # under inference_mode, operations that consist of others arrive before they are taken apart
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
            _WHOLE.add(func)
        return func(*args, **kwargs)


_WHOLE: set[Any] = set()
"""Operations that were seen not to consist of others."""

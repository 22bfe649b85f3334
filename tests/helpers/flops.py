"""FLOPs of a whole call as torch's `FlopCounterMode` sees them, with formulas of its own for what torch has none for."""

from collections import Counter
from contextlib import contextmanager
from math import prod

import torch
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten


def flash(q, k, v, dropout=0.0, causal=False, *_, **__):
    """Scores and weighted values, 2 D each, for every visible pair."""
    (b, h, t, d), n = q, k[2]
    assert v == k
    return b * h * 4 * d * sum(i + 1 if causal else n for i in range(t))


def cholesky(a, *_, **__):
    """Column j: j products for each of the rows below."""
    return prod(a[:-2]) * a[-1] ** 3 // 3


def substitutions(b, a, *_, **__):
    return prod(b[:-2]) * b[-1] * 2 * a[-1] ** 2


def solve(a, b, *_, **__):
    n, k = a[-1], b[-1]
    return prod(a[:-2]) * (2 * n**3 // 3 + 2 * n**2 * k)


def reflections(a, *_, **__):
    """m x n with m >= n: 2 m n^2 - 2 n^3 / 3 to factorise, and as much for Q."""
    m, n = a[-2:]
    assert m >= n
    return prod(a[:-2]) * (4 * m * n**2 - 4 * n**3 // 3)


OTHERS = {
    aten._scaled_dot_product_flash_attention_for_cpu: flash,
    aten.mv: lambda a, *_, **__: 2 * a[0] * a[1],
    aten.dot: lambda a, *_, **__: 2 * a[0],
    aten._cdist_forward: lambda a, b, *_, **__: 3 * prod(a) * b[-2],
    aten.linalg_cholesky_ex: cholesky,
    aten.cholesky_solve: substitutions,
    aten._linalg_solve_ex: solve,
    aten.linalg_qr: reflections,
}


@contextmanager
def counted():
    """While open, all that runs is counted into the counter that is given, by operation; -> (operation -> FLOPs)."""
    found = Counter()
    with FlopCounterMode(display=False, custom_mapping=OTHERS) as counter:
        yield found
    found.update({str(op): flops for op, flops in counter.get_flop_counts().get("Global", {}).items()})

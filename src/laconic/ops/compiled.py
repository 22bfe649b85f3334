"""Decode attention by compiled loops on a CPU: where they fit, and how they run over threads.

A few query rows over many entries are limited by the reading of keys and values. The loops (`fused_loops.py`) read each
number once, as it is stored; torch's kernels, made for many rows, take several times as long and split over heads only.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch

ROWS = 32  # G x T query rows up to which the compiled loops beat torch's matrix products
SHARE = 1 << 20  # multiplications below which waking a thread costs more than its work
DENSE = 1 << 19  # multiplications from which loading the loops pays where torch has a kernel of its own ...
DENSE_ROWS = 8  # ... and query rows from which torch's is as fast
_EMPTY = torch.empty(0, 0, 0)

Array: TypeAlias = "np.ndarray[Any, Any]"


def fits(q: torch.Tensor, rows: int, sizes: tuple[int, int], *stored: torch.Tensor) -> bool:
    """Whether a compiled loop is exact and faster: vectors of a multiple of 8, few rows, nothing to differentiate."""
    differentiable = torch.is_grad_enabled() and any(x.requires_grad for x in (q, *stored))
    return q.device.type == "cpu" and rows <= ROWS and not any(size % 8 for size in sizes) and not differentiable


def serves(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> bool:
    """Whether `attend_dense` is exact and faster for these q [B, H, T, D], k [B, Hkv, n, D], v [B, Hkv, n, Dv]."""
    (b, h, t, d), (_, hkv, n, _), dv = q.shape, k.shape, v.shape[-1]
    rows = h // hkv * t
    if rows > DENSE_ROWS or b * h * t * n * (d + dv) < DENSE or q.dtype not in (torch.float32, torch.bfloat16):
        return False
    return q.dtype == k.dtype == v.dtype and fits(q, rows, (d, dv), k, v) and _placed(k) == _placed(v) is not None


def attend_dense(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, *, bias: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [B, H, T, D], k [B, Hkv, n, D], v [B, Hkv, n, Dv] -> output [B, H, T, Dv], lse [B, H, T] (fp32), where it `serves`.

    Buffers with spare room after every head's entries are read in place.

    Args:
        bias: additive logits per key, broadcastable to [B, Hkv, n]; -inf hides a key.
    """
    b, hkv, n, _ = k.shape
    counts = np.full(b * hkv, n)
    if bias is not None:
        bias = bias.detach().expand(b, hkv, n).float().reshape(-1)
    place = _placed(k)
    assert place is not None
    return attend_runs(q, _flat(k), _flat(v), _starts(b, hkv, *place), counts, scale, bias, _starts(b, hkv, hkv * n, n))


def attend_runs(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    starts: Array,
    counts: Array,
    scale: float,
    bias: torch.Tensor | None,
    biases: Array,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [B, H, T, D]; KV head i of B * Hkv owns the rows starts[i] to starts[i] + counts[i] of keys [total, D] and values
    [total, Dv], all float32 or all bfloat16, and the numbers from biases[i] on of bias, flat, float32
    -> output [B, H, T, Dv], lse [B, H, T] (fp32)."""
    (b, h, t, d), heads, dv = q.shape, len(counts), values.shape[-1]
    kernel = loops().runs(d, dv, str(keys.dtype).removeprefix("torch."))
    flat = _EMPTY.view(0) if bias is None else bias
    arguments = [rows_of(q, heads), scale, array(keys), array(values), starts, counts, array(flat), biases]
    rows = b * h // heads * t
    out, lse = launch(kernel, arguments, heads, rows, dv, keys.shape[0] * rows * (d + dv))
    return out.view(b, h, t, dv).to(q.dtype), lse.view(b, h, t)


# -- running a loop ----------------------------------------------------------------------------------------------------
def launch(
    kernel: Any, arguments: list[Any], heads: int, rows: int, dim: int, work: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a kernel, one share of the entries per thread, and merge -> out [heads, rows, dim], lse [heads, rows].

    Args:
        work: multiplications in all; no thread is woken for fewer than `SHARE` of them.
    """
    shares = max(1, min(torch.get_num_threads(), work // SHARE))
    outs = np.empty((shares, heads, rows, dim), np.float32)
    tops, totals = np.empty((2, shares, heads, rows), np.float32)

    def run(share: int) -> None:
        kernel(share, *arguments, outs, tops, totals)

    new = not kernel.signatures
    if new:  # its first call compiles or loads it: in one thread, before others ask for the same
        run(0)
    others = [_pool().submit(run, share) for share in range(1, shares)]
    if not new:
        run(0)
    for other in others:
        other.result()
    out, lse = torch.empty(heads, rows, dim), torch.empty(heads, rows)
    loops().combine(outs, tops, totals, out.numpy(), lse.numpy())
    return out, lse


def rows_of(q: torch.Tensor, heads: int) -> Array:
    """q [B, H, T, D] -> float32 [heads, G * T, D]."""
    return q.detach().float().reshape(heads, -1, q.shape[-1]).numpy()


def array(x: torch.Tensor | None) -> Array:
    """A NumPy view; 16-bit floats, which NumPy cannot read, as their bits; None as an empty array."""
    x = _EMPTY if x is None else x.detach()
    return (x.view(torch.uint16) if x.dtype in (torch.float16, torch.bfloat16) else x).numpy()


@cache
def loops() -> ModuleType:
    """Import numba with the first attention that needs it, not with the package."""
    from laconic.ops import fused_loops

    return fused_loops


@cache
def _pool() -> ThreadPoolExecutor:
    """A thread pool for the loops. numba's own threads will not do: its `workqueue` layer aborts when two threads call at
    once, and its OpenMP is a different library from torch's, whose waiting threads spin on the cores that it needs."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="laconic")


if hasattr(os, "register_at_fork"):  # a forked child has the pool but not its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


# -- dense tensors as flat rows ----------------------------------------------------------------------------------------
def _placed(x: torch.Tensor) -> tuple[int, int] | None:
    """Rows from one batch row of x [B, Hkv, n, D] to the next, and from one head to the next; None where an entry, or the
    way to the next one, is not D numbers."""
    batch, head, entry, number = x.stride()
    size = x.shape[3]
    return None if number != 1 or entry != size or batch % size or head % size else (batch // size, head // size)


def _flat(x: torch.Tensor) -> torch.Tensor:
    """The memory that x [B, Hkv, n, D] shows, from its first entry to its last -> [rows, D]."""
    batch, head, size, _ = x.stride()
    b, h, n, _ = x.shape
    return x.as_strided((((b - 1) * batch + (h - 1) * head) // size + n, size), (size, 1))


@lru_cache
def _starts(b: int, h: int, batch: int, head: int) -> Array:
    """The first row of every head, [B * Hkv]."""
    return (np.arange(b)[:, None] * batch + np.arange(h) * head).reshape(-1)

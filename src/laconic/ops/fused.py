"""Decode attention over quantised or ragged entries without a float copy of them; output and log-sum-exp, as in `attend`.

A few query rows on a CPU run through one compiled loop per call (`fused_loops.py`). Everything else (many rows, softcap,
other devices, gradients) takes a torch path through the same functions: blocks of tiles dequantised and attended, or head by
head.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import ModuleType
from typing import Any

import torch

from laconic.ops import triton_decode
from laconic.ops.attend import attend, merge
from laconic.ops.quantise import Quantised

ROWS = 32  # G x T query rows up to which the compiled loop beats dequantising and torch's matrix products
SHARE = 1 << 20  # multiplications below which waking a thread costs more than its work
_TILES = 64  # tiles that the torch path dequantises at once
_EMPTY = torch.empty(0, 0, 0)


def attend_quantised(
    q: torch.Tensor,
    keys: Quantised,
    values: Quantised,
    scale: float,
    *,
    bias: torch.Tensor | None = None,
    extra: torch.Tensor | None = None,
    logits: torch.Tensor | None = None,
    softcap: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [B, H, T, D] sees all n quantised entries -> output [B, H, T, Dv], lse [B, H, T] (fp32).

    Args:
        bias: additive logits per key, broadcastable to [B, Hkv, n]; -inf hides a key.
        extra: additive logits per query row and key, [B, Hkv, G * T, n] (a low-rank correction); before the softcap.
        logits: float32 [B, Hkv, G * T, n] that receives the final logits; ``exp(logits - lse)`` are the attention weights.
        softcap: ``softcap * tanh(logits / softcap)`` before the bias (Gemma 2).
    """
    if extra is None and logits is None and triton_decode.available(q) and triton_decode.readable(keys, values):
        return triton_decode.attend_quantised(q, keys, values, scale, bias=bias, softcap=softcap)
    (b, h, t, _), n, hkv = q.shape, keys.length, keys.buffers["codes"].shape[1]
    _check(q, keys, values)
    if bias is not None:
        bias = bias.expand(b, hkv, n)
    sizes = (keys.head_dim, values.head_dim)
    if softcap is not None or not _fits(q, h // hkv * t, sizes):
        return _dequantised(q, keys, values, scale, bias, extra, logits, softcap)
    rows = h // hkv * t
    loops = _loops()
    kernel = loops.quantised(keys.bits, values.bits, *sizes, keys.tile, values.width)
    arguments = [
        _array(_rows(q, scale, b * hkv)),
        *(_array(keys.buffers[name]) for name in ("codes", "step", "zero", "owner")),
        *(_array(values.buffers[name]) for name in ("codes", "step", "zero")),
        n,
        _array(_EMPTY if bias is None else bias.float().contiguous()),
        _array(_EMPTY if extra is None else extra.detach().float().reshape(b * hkv, rows, n).contiguous()),
        _array(_EMPTY if logits is None else logits.view(b * hkv, rows, n)),
    ]
    out, lse = _launch(kernel, arguments, b * hkv, rows, values.head_dim, b * hkv * n * rows * sum(sizes))
    return out.view(b, h, t, -1).to(q.dtype), lse.view(b, h, t)


def attend_ragged(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    starts: torch.Tensor,
    counts: torch.Tensor,
    scale: float,
    *,
    bias: torch.Tensor | None = None,
    softcap: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [B, H, T, D]; KV head i of B * Hkv owns the rows starts[i] to starts[i] + counts[i] of keys [total, D] and values
    [total, Dv] -> output [B, H, T, Dv], lse [B, H, T] (fp32).

    Args:
        starts, counts: int64 [B * Hkv], on the CPU.
        bias: additive logits float32 [total]; -inf hides an entry.
        softcap: as in `attend_quantised`.
    """
    if triton_decode.available(q, keys, values):
        return triton_decode.attend_ragged(q, keys, values, starts, counts, scale, bias=bias, softcap=softcap)
    (b, h, t, d), heads = q.shape, counts.shape[0]
    rows = b * h // heads * t
    half = keys.dtype == torch.bfloat16
    stored = half or keys.dtype == torch.float32
    if softcap is not None or not stored or not _fits(q, rows, (d, values.shape[-1])):
        return _head_by_head(q, keys, values, starts.tolist(), counts.tolist(), scale, bias, softcap)
    kernel = _loops().ragged(d, values.shape[-1], half)
    flat = _EMPTY.view(0) if bias is None else bias
    arguments = [_array(x) for x in (_rows(q, scale, heads), keys, values, starts, counts, flat)]
    work = keys.shape[0] * rows * (d + values.shape[-1])
    out, lse = _launch(kernel, arguments, heads, rows, values.shape[-1], work)
    return out.view(b, h, t, -1).to(q.dtype), lse.view(b, h, t)


def _check(q: torch.Tensor, keys: Quantised, values: Quantised) -> None:
    """The compiled loops read what they are told to, so what they are told must be there."""
    n = keys.length
    if values.length != n or values.tile != keys.tile:
        raise ValueError(
            f"keys: {n} tokens in tiles of {keys.tile}, values: {values.length} in tiles of {values.tile}; they must agree."
        )
    own, other = keys.buffers["codes"].shape, values.buffers["codes"].shape
    if own[:2] != other[:2] or own[0] != q.shape[0] or q.shape[1] % own[1] or q.shape[3] != keys.head_dim:
        raise ValueError(
            f"q: {list(q.shape)} against keys of {own[0]} rows, {own[1]} KV heads of {keys.head_dim} and values of "
            f"{other[0]} rows, {other[1]} KV heads; rows and head sizes must agree, query heads be a multiple of KV heads."
        )
    if n > keys.tile * min(own[2], other[2]):
        raise ValueError(f"keys: {n} tokens in {own[2]} tiles of {keys.tile} (values: {other[2]}); some are not stored.")


# -- the compiled loops ------------------------------------------------------------------------------------------------
def _fits(q: torch.Tensor, rows: int, sizes: tuple[int, int]) -> bool:
    """Whether the compiled loop is exact and faster: vectors of a multiple of 8, few rows, nothing to differentiate."""
    differentiable = q.requires_grad and torch.is_grad_enabled()
    return q.device.type == "cpu" and rows <= ROWS and not any(size % 8 for size in sizes) and not differentiable


def _rows(q: torch.Tensor, scale: float, heads: int) -> torch.Tensor:
    """q [B, H, T, D] -> float32 [heads, G * T, D], scaled."""
    return (q.detach().float() * scale).reshape(heads, -1, q.shape[-1])


def _array(x: torch.Tensor) -> Any:
    """A NumPy view; 16-bit floats, which the compiled loops cannot read, as their bits."""
    x = x.detach()
    return (x.view(torch.uint16) if x.dtype in (torch.float16, torch.bfloat16) else x).numpy()


@cache
def _loops() -> ModuleType:
    """Import numba with the first compressed part that needs it, not with the package."""
    from laconic.ops import fused_loops

    return fused_loops


@cache
def _pool() -> ThreadPoolExecutor:
    """A thread pool for the loops. numba's own threads will not do: its `workqueue` layer aborts when two threads call at
    once, and its OpenMP is a different library from torch's, whose waiting threads spin on the cores that it needs."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="laconic")


if hasattr(os, "register_at_fork"):  # a forked child has the pool but not its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _launch(
    kernel: Any, arguments: list[Any], heads: int, rows: int, dim: int, work: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a kernel, one share of the entries per thread, and merge -> out [heads, rows, dim], lse [heads, rows].

    Args:
        work: multiplications in all; no thread is woken for fewer than `SHARE` of them.
    """
    shares = max(1, min(torch.get_num_threads(), work // SHARE))
    outs = torch.empty(shares, heads, rows, dim).numpy()
    tops, totals = torch.empty(2, shares, heads, rows).numpy()

    def run(share: int) -> None:
        kernel(share, *arguments, outs, tops, totals)

    others = [_pool().submit(run, share) for share in range(1, shares)]
    run(0)
    for other in others:
        other.result()
    out, lse = torch.empty(heads, rows, dim), torch.empty(heads, rows)
    _loops().combine(outs, tops, totals, out.numpy(), lse.numpy())
    return out, lse


# -- the torch paths ---------------------------------------------------------------------------------------------------
def _dequantised(
    q: torch.Tensor,
    keys: Quantised,
    values: Quantised,
    scale: float,
    bias: torch.Tensor | None,
    extra: torch.Tensor | None,
    logits: torch.Tensor | None,
    softcap: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks of tiles, dequantised to q's dtype, attended and merged one by one, so that only one of them is in memory."""
    done: list[tuple[torch.Tensor, torch.Tensor]] = []
    for first in range(0, -(-keys.length // keys.tile), _TILES):
        k, v = (x.dequantise(first, first + _TILES).to(q.dtype) for x in (keys, values))
        own = slice(first * keys.tile, first * keys.tile + k.shape[2])
        added = None if bias is None else bias[..., own]
        if extra is None and logits is None:
            out, lse = attend(q, k, v, scale, bias=added, softcap=softcap)
            done = [merge([*done, (out.float(), lse)])]
            continue
        rows = q.reshape(*k.shape[:2], -1, q.shape[-1])
        block = torch.matmul(rows * scale, k.transpose(-1, -2)).float()
        if extra is not None:
            block = block + extra[..., own]
        if softcap is not None:
            block = softcap * torch.tanh(block / softcap)
        if added is not None:
            block = block + added[:, :, None]
        if logits is not None:
            logits[..., own] = block
        lse = block.logsumexp(-1)
        weights = torch.exp(block - lse.masked_fill(lse.isneginf(), 0)[..., None])
        out = torch.matmul(weights.to(v.dtype), v)
        done = [merge([*done, (out.view(*q.shape[:3], -1).float(), lse.view(q.shape[:3]))])]
    (out, lse), *_ = done
    return out.to(q.dtype), lse


def _head_by_head(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    starts: list[int],
    counts: list[int],
    scale: float,
    bias: torch.Tensor | None,
    softcap: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`attend` for every KV head on its own rows."""
    b, h, t, d = q.shape
    grouped, done = q.reshape(len(counts), 1, -1, t, d), []
    for i, (start, count) in enumerate(zip(starts, counts, strict=True)):
        own = slice(start, start + count)
        added = None if bias is None else bias[None, None, own]
        done.append(attend(grouped[i], keys[None, None, own], values[None, None, own], scale, bias=added, softcap=softcap))
    out, lse = (torch.cat(x) for x in zip(*done, strict=True))
    return out.view(b, h, t, -1), lse.view(b, h, t)

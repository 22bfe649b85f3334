"""Decode attention over quantised or ragged entries without a float copy of them; output and log-sum-exp, as in `attend`.

A few query rows on a CPU run through one compiled loop per call (`compiled.py`). Everything else (many rows, softcap,
other devices, gradients) takes a torch path through the same functions: blocks of tiles dequantised and attended, or head by
head.
"""

from __future__ import annotations

import torch

from laconic.ops import compiled, triton_decode
from laconic.ops.attend import attend, merge
from laconic.ops.quantise import Quantised

_TILES = 64  # tiles that the torch path dequantises at once


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
    if softcap is not None or not compiled.fits(q, h // hkv * t, sizes):
        return _dequantised(q, keys, values, scale, bias, extra, logits, softcap)
    rows = h // hkv * t
    kernel = compiled.loops().quantised(keys.bits, values.bits, *sizes, keys.tile, values.width)
    arguments = [
        compiled.rows_of(q, b * hkv),
        scale,
        *(compiled.array(keys.buffers[name]) for name in ("codes", "step", "zero", "owner")),
        *(compiled.array(values.buffers[name]) for name in ("codes", "step", "zero")),
        n,
        compiled.array(None if bias is None else bias.float().contiguous()),
        compiled.array(None if extra is None else extra.float().reshape(b * hkv, rows, n).contiguous()),
        compiled.array(None if logits is None else logits.view(b * hkv, rows, n)),
    ]
    out, lse = compiled.launch(kernel, arguments, b * hkv, rows, values.head_dim, b * hkv * n * rows * sum(sizes))
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
    stored = keys.dtype in (torch.float32, torch.bfloat16)
    if softcap is not None or not stored or not compiled.fits(q, rows, (d, values.shape[-1]), keys, values):
        return _head_by_head(q, keys, values, starts.tolist(), counts.tolist(), scale, bias, softcap)
    return compiled.attend_runs(q, keys, values, starts.numpy(), counts.numpy(), scale, bias, starts.numpy())


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

"""The Triton kernels behind `triton_decode.py`: flash decoding (split over the keys, merged by log-sum-exp).

One program attends R query rows, which are the G x T queries of one KV head, over one chunk of that head's entries; `merge`
combines the chunks exactly. Imported on first use only. Idea: flash decoding and FlashAttention-2 (2307.08691), section 3.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs
# Triton reads the annotations of its kernels and accepts only `constexpr`.

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

_TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


def product_type(dtype: torch.dtype) -> Any:
    """The type that matrix products read; Triton's interpreter multiplies bf16 as if it were integers, so it gets fp32."""
    if dtype not in _TYPES:
        raise TypeError(f"dtype {dtype}: the Triton kernels take float32, float16 and bfloat16")
    return tl.float32 if triton.knobs.runtime.interpret and dtype == torch.bfloat16 else _TYPES[dtype]


@triton.jit
def _rows(q, head, first, rows, D: tl.constexpr, DP: tl.constexpr, ROWS: tl.constexpr):
    """Rows first .. first + ROWS of q [B x Hkv, rows, D], zero-padded -> [ROWS, DP]."""
    row, d = first + tl.arange(0, ROWS), tl.arange(0, DP)
    inside = (row < rows)[:, None] & (d < D)[None, :]
    return tl.load(q + (head * rows + row)[:, None] * D + d[None, :], mask=inside, other=0.0)


@triton.jit
def _tile(x, entry, real, stride_n, stride_d, D: tl.constexpr, DP: tl.constexpr):
    """Entries of x [n, D], zero-padded -> [BLOCK, DP]."""
    d = tl.arange(0, DP)
    return tl.load(x + entry[:, None] * stride_n + d[None, :] * stride_d, mask=real[:, None] & (d < D)[None, :], other=0.0)


@triton.jit
def _finish_logits(logits, entry, real, bias, stride_n, softcap):
    """Softcap, then the bias of every entry, then -inf where there is no entry."""
    if softcap is not None:
        logits = softcap * (2 * tl.sigmoid(2 * logits / softcap) - 1)  # tanh
    if bias is not None:
        logits += tl.load(bias + entry * stride_n, mask=real, other=0.0).to(tl.float32)[None, :]
    return tl.where(real[None, :], logits, float("-inf"))


@triton.jit
def _online(logits, top, total):
    """Online softmax -> weights [ROWS, BLOCK], factor for everything so far [ROWS], new maximum, new sum."""
    higher = tl.maximum(top, tl.max(logits, 1))
    finite = tl.where(higher == float("-inf"), 0.0, higher)  # -inf minus -inf is nan
    weights = tl.exp(logits - finite[:, None])
    factor = tl.exp(top - finite)
    return weights, factor, higher, total * factor + tl.sum(weights, 1)


@triton.jit
def _store(out, lse, at, inside, acc, top, total, DV: tl.constexpr, DVP: tl.constexpr):
    """Write normalised rows acc [ROWS, DVP] to out [.., DV] and their log-sum-exp; blind rows give zeros and -inf."""
    d = tl.arange(0, DVP)
    blind = total == 0
    acc = acc / tl.where(blind, 1.0, total)[:, None]
    tl.store(out + at[:, None] * DV + d[None, :], acc.to(out.dtype.element_ty), mask=inside[:, None] & (d < DV)[None, :])
    tl.store(lse + at, tl.where(blind, float("-inf"), top + tl.log(tl.where(blind, 1.0, total))), mask=inside)


@triton.jit(do_not_specialize=["rows", "n", "chunk", "splits", "bias_b", "bias_h", "bias_n"])
def decode(
    q,  # [B x Hkv, rows, D]
    k,  # [B, Hkv, n, D], or flat [entries, D]
    v,  # [B, Hkv, n, DV], or flat [entries, DV]
    bias,  # [B, Hkv, n], flat [entries] or None
    starts,  # [B x Hkv] or None: the first entry of every head in the flat buffers
    counts,  # [B x Hkv] or None
    out,  # [B x Hkv, splits, rows, DV]
    lse,  # [B x Hkv, splits, rows]
    scale,
    softcap,
    rows,
    n,
    chunk,
    splits,
    hkv,
    k_b,
    k_h,
    k_n,
    k_d,
    v_b,
    v_h,
    v_n,
    v_d,
    bias_b,
    bias_h,
    bias_n,
    D: tl.constexpr,
    DP: tl.constexpr,
    DV: tl.constexpr,
    DVP: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    DOT: tl.constexpr,  # type of the tensor-core products
):
    head, split = tl.program_id(0).to(tl.int64), tl.program_id(1)  # 64 bits: offsets in large caches overflow 32
    begin = split * chunk
    if starts is not None:
        n = tl.load(counts + head).to(tl.int32)
        base = tl.load(starts + head).to(tl.int64)
        k, v = k + base * k_n, v + base * v_n
        if bias is not None:
            bias += base * bias_n
    else:
        b, h = head // hkv, head % hkv
        k, v = k + b * k_b + h * k_h, v + b * v_b + h * v_h
        if bias is not None:
            bias += b * bias_b + h * bias_h
    if (begin >= n) & (split > 0):  # `merge` does not read this chunk
        return
    first = tl.program_id(2) * ROWS
    queries = _rows(q, head, first, rows, D, DP, ROWS).to(DOT)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, DVP], tl.float32)
    for at in range(begin, tl.minimum(begin + chunk, n), BLOCK):
        entry = at + tl.arange(0, BLOCK)
        real = entry < n
        entry = entry.to(tl.int64)
        keys = _tile(k, entry, real, k_n, k_d, D, DP)
        logits = tl.dot(queries, tl.trans(keys).to(DOT), input_precision="ieee") * scale
        logits = _finish_logits(logits, entry, real, bias, bias_n, softcap)
        weights, factor, top, total = _online(logits, top, total)
        values = _tile(v, entry, real, v_n, v_d, DV, DVP)
        acc = acc * factor[:, None] + tl.dot(weights.to(DOT), values.to(DOT), input_precision="ieee")
    row = first + tl.arange(0, ROWS)
    _store(out, lse, (head * splits + split) * rows + row, row < rows, acc, top, total, DV, DVP)


@triton.jit(do_not_specialize=["rows", "n", "chunk", "splits"])
def merge(
    parts,  # [B x Hkv, splits, rows, DV]
    part_lse,  # [B x Hkv, splits, rows]
    counts,  # [B x Hkv] or None
    out,  # [B x Hkv, rows, DV]
    lse,  # [B x Hkv, rows]
    rows,
    n,
    chunk,
    splits,
    DV: tl.constexpr,
    DVP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One query row: the chunks' outputs, weighted by their log-sum-exps; empty chunks were never written."""
    head, row = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if counts is not None:
        n = tl.load(counts + head).to(tl.int32)
    written = tl.maximum(tl.cdiv(n, chunk), 1)
    top = tl.full([1], float("-inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    acc = tl.zeros([1, DVP], tl.float32)
    d = tl.arange(0, DVP)
    for at in range(0, written, BLOCK):
        split = at + tl.arange(0, BLOCK)
        there = split < written
        from_ = (head * splits + split) * rows + row
        logits = tl.load(part_lse + from_, mask=there, other=float("-inf"))[None, :]
        weights, factor, top, total = _online(logits, top, total)
        values = tl.load(parts + from_[:, None] * DV + d[None, :], mask=there[:, None] & (d < DV)[None, :], other=0.0)
        acc = acc * factor[:, None] + tl.sum(tl.trans(weights) * values, 0)[None, :]
    at = head * rows + row + tl.arange(0, 1)
    _store(out, lse, at, at >= 0, acc, top, total, DV, DVP)


@triton.jit
def _codes(packed, run, place, inside, RUNS: tl.constexpr, LENGTH: tl.constexpr, BITS: tl.constexpr):
    """Code `place` of run `run` in tiles of RUNS runs of LENGTH codes, packed in planes as `quantise.pack` does."""
    if BITS == 3:
        low = _plane(packed, run, place, inside, RUNS, LENGTH, 2)
        high = _plane(packed + RUNS * LENGTH // 4, run, place, inside, RUNS, LENGTH, 1)
        return low | (high << 2)
    return _plane(packed, run, place, inside, RUNS, LENGTH, BITS)


@triton.jit
def _plane(packed, run, place, inside, RUNS: tl.constexpr, LENGTH: tl.constexpr, BITS: tl.constexpr):
    """Loads every byte once per plane (from the nearest cache after the first time), so all codes land in their places."""
    per: tl.constexpr = RUNS * BITS // 8
    byte = tl.load(packed + run % per * LENGTH + place, mask=inside, other=0)
    return (byte.to(tl.int32) >> (run // per * BITS)) & ((1 << BITS) - 1)


@triton.jit(do_not_specialize=["rows", "n", "chunk", "splits", "bias_b", "bias_h", "bias_n"])
def decode_quantised(
    q,  # [B x Hkv, rows, D]
    k,  # codes [B, Hkv, tiles, D x TILE packed]
    k_step,  # [B, Hkv, groups, D]
    k_zero,  # [B, Hkv, groups, D]
    owner,  # [B, 1, tiles]: the group of every tile
    v,  # codes [B, Hkv, tiles, DV / WIDTH x TILE x WIDTH packed]
    v_step,  # [B, Hkv, tiles, DV / WIDTH x TILE]
    v_zero,
    bias,  # [B, Hkv, n] or None
    counts,  # None: every head has n entries
    out,  # [B x Hkv, splits, rows, DV]
    lse,  # [B x Hkv, splits, rows]
    scale,
    softcap,
    rows,
    n,
    chunk,
    splits,
    hkv,
    k_b,
    k_h,
    k_n,
    k_step_b,
    k_step_h,
    k_step_n,
    owner_b,
    v_b,
    v_h,
    v_n,
    v_step_b,
    v_step_h,
    v_step_n,
    bias_b,
    bias_h,
    bias_n,
    D: tl.constexpr,
    DP: tl.constexpr,
    DV: tl.constexpr,
    DVP: tl.constexpr,
    WIDTH: tl.constexpr,
    WP: tl.constexpr,
    TILE: tl.constexpr,
    BITS_K: tl.constexpr,
    BITS_V: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    DOT: tl.constexpr,
):
    head, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    begin = split * chunk
    b, h = head // hkv, head % hkv
    k, v = k + b * k_b + h * k_h, v + b * v_b + h * v_h
    k_from, v_from = b * k_step_b + h * k_step_h, b * v_step_b + h * v_step_h
    k_step, k_zero, v_step, v_zero = k_step + k_from, k_zero + k_from, v_step + v_from, v_zero + v_from
    owner += b * owner_b
    if bias is not None:
        bias += b * bias_b + h * bias_h
    first = tl.program_id(2) * ROWS
    queries = _rows(q, head, first, rows, D, DP, ROWS).to(DOT)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, DVP], tl.float32)
    d, part, place = tl.arange(0, DP), tl.arange(0, DVP // WP), tl.arange(0, WP)
    real_d = d < D
    real_c = (part * WIDTH < DV)[:, None] & (place < WIDTH)[None, :]
    for at in range(begin, tl.minimum(begin + chunk, n), BLOCK):
        # keys are stored channel by channel: [DP, tiles, TILE] is their transpose
        tile = (at // TILE + tl.arange(0, BLOCK // TILE)).to(tl.int64)
        there = tile * TILE < n
        inside = real_d[:, None] & there[None, :]
        group = tl.load(owner + tile, mask=there, other=0).to(tl.int64)
        of_group = group[None, :] * k_step_n + d[:, None]
        step = tl.load(k_step + of_group, mask=inside, other=0.0).to(tl.float32)
        zero = tl.load(k_zero + of_group, mask=inside, other=0.0).to(tl.float32)
        packed = k + tile[None, :, None] * k_n
        codes = _codes(packed, d[:, None, None], tl.arange(0, TILE)[None, None, :], inside[:, :, None], D, TILE, BITS_K)
        keys = tl.reshape(codes.to(tl.float32) * step[:, :, None] + zero[:, :, None], [DP, BLOCK])

        entry = at + tl.arange(0, BLOCK)
        real = entry < n
        logits = tl.dot(queries, keys.to(DOT), input_precision="ieee") * scale
        logits = _finish_logits(logits, entry, real, bias, bias_n, softcap)
        weights, factor, top, total = _online(logits, top, total)

        # values are stored token by token within each group of channels: [BLOCK, groups, WP]
        run = part[None, :] * TILE + (entry % TILE)[:, None]
        tile = (entry // TILE).to(tl.int64)[:, None]
        inside = real[:, None] & (part * WIDTH < DV)[None, :]
        step = tl.load(v_step + tile * v_step_n + run, mask=inside, other=0.0).to(tl.float32)
        zero = tl.load(v_zero + tile * v_step_n + run, mask=inside, other=0.0).to(tl.float32)
        inside = real[:, None, None] & real_c[None, :, :]
        packed = v + tile[:, :, None] * v_n
        codes = _codes(packed, run[:, :, None], place[None, None, :], inside, DV // WIDTH * TILE, WIDTH, BITS_V)
        values = tl.reshape(codes.to(tl.float32) * step[:, :, None] + zero[:, :, None], [BLOCK, DVP])
        acc = acc * factor[:, None] + tl.dot(weights.to(DOT), values.to(DOT), input_precision="ieee")
    row = first + tl.arange(0, ROWS)
    _store(out, lse, (head * splits + split) * rows + row, row < rows, acc, top, total, DV, DVP)

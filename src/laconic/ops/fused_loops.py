"""The loops of decode attention, compiled by numba for this machine's vector units. Imported on first use only.

Both kernels walk over blocks of keys with an online softmax. What makes them fast: the inner loops run over fixed, short,
contiguous rows (sizes are compile-time constants of a factory); several rows and terms share each load, and numbers are
widened on the way; the exponential is a polynomial that vectorises.

Rows: the G x T queries of a KV head. Work is divided into shares of equal numbers of entries, whatever head they belong
to; one call computes one share, without the interpreter's lock, and writes per head `outs`, `tops` (maxima) and `totals`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

Array = np.ndarray
FLOOR = np.float32(-1e30)  # below every real logit, and finite, so that infinities are never subtracted from each other
BLOCK = 32  # keys per block of the kernel for dense and ragged entries

# fast-math without "ninf": biases hide keys with -inf, so infinities must be respected
_FAST = {"reassoc", "contract", "arcp", "nsz", "afn", "nnan"}
_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": _FAST, "error_model": "numpy"}
_loop = njit(forceinline=True, **_OPTIONS)
_intrinsic: Any = intrinsic  # its type for mypy is that of the function which makes the code, not of the code


@_intrinsic
def _float_of(typing: Any, bits: Any) -> Any:
    """int32 -> the float32 with these bits."""
    return types.float32(types.int32), lambda _, builder, __, args: builder.bitcast(args[0], ir.FloatType())


@_intrinsic
def _f32(typing: Any, x: Any) -> Any:
    """A stored number -> float32: a float32 as it is, the upper half of one (bfloat16 bits, uint16) widened."""
    if x == types.float32:
        return types.float32(types.float32), lambda _, __, ___, args: args[0]

    def widened(_: Any, builder: Any, __: Any, args: Any) -> Any:
        bits = builder.shl(builder.zext(args[0], ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(types.uint16), widened


@_loop
def _unpack(packed: Array, bits: int, count: int, out: Array) -> None:
    """packed uint8, as `quantise.pack` -> out[:count], the codes as floats."""
    if bits == 8:
        for i in range(count):
            out[i] = np.float32(packed[i])
    elif bits == 3:
        eighth = count // 8
        high = packed[2 * eighth :]
        for p in range(8):
            low, part = packed[(p % 2) * eighth :], out[p * eighth :]
            for i in range(eighth):
                bit = (high[i] >> np.uint8(p)) & np.uint8(1)
                part[i] = np.float32(((low[i] >> np.uint8(p // 2 * 2)) & np.uint8(3)) | (bit << np.uint8(2)))
    else:
        size = count * bits // 8
        for p in range(8 // bits):
            part = out[p * size :]
            for i in range(size):
                part[i] = np.float32((packed[i] >> np.uint8(p * bits)) & np.uint8(2**bits - 1))


@_loop
def _widen(half: Array, out: Array) -> None:
    """float16 bits (uint16) -> float32; the exponents are moved by multiplying with 2^112."""
    for i in range(half.shape[0]):
        x = np.int32(half[i])
        bits = ((x & np.int32(0x7FFF)) << np.int32(13)) | ((x & np.int32(0x8000)) << np.int32(16))
        out[i] = _float_of(bits) * np.float32(2.0**112)


@_loop
def _exponentials(x: Array, top: float, size: int) -> Any:
    """x <- exp(x - top), to 2e-7; -> their sum. 2^y = 2^k * 2^f: k into the exponent bits, Taylor for f in [-1/2, 1/2]."""
    total = np.float32(0)
    for i in range(size):
        y = max((x[i] - top) * np.float32(1.4426950408889634), np.float32(-127))
        k = np.floor(y + np.float32(0.5))
        f = y - k
        p = np.float32(1.540353e-4) * f + np.float32(1.33335581e-3)
        p = p * f + np.float32(9.61812911e-3)
        p = p * f + np.float32(5.55041087e-2)
        p = p * f + np.float32(2.40226507e-1)
        p = p * f + np.float32(6.93147181e-1)
        power = _float_of((np.int32(k) + np.int32(127)) << np.int32(23))  # 0 at the clamp: hidden keys weigh exactly nothing
        x[i] = (p * f + np.float32(1)) * power
        total += x[i]
    return total


@_loop
def _multiply_add(weights: Array, x: Array, rows: int, terms: int, width: int, out: Array) -> None:
    """out[:rows, :width] += weights[:rows, :terms] @ x[:terms, :width]; 4 rows x 4 terms, or 1 row x 8 terms, at a time."""
    fours, eights = terms // 4 * 4, terms // 8 * 8
    for r in range(0, rows // 4 * 4, 4):
        o0, o1, o2, o3 = out[r], out[r + 1], out[r + 2], out[r + 3]
        w0, w1, w2, w3 = weights[r], weights[r + 1], weights[r + 2], weights[r + 3]
        for d in range(0, fours, 4):
            x0, x1, x2, x3 = x[d], x[d + 1], x[d + 2], x[d + 3]
            a0, a1, a2, a3 = w0[d], w0[d + 1], w0[d + 2], w0[d + 3]
            b0, b1, b2, b3 = w1[d], w1[d + 1], w1[d + 2], w1[d + 3]
            u0, u1, u2, u3 = w2[d], w2[d + 1], w2[d + 2], w2[d + 3]
            e0, e1, e2, e3 = w3[d], w3[d + 1], w3[d + 2], w3[d + 3]
            for i in range(width):
                y0, y1, y2, y3 = _f32(x0[i]), _f32(x1[i]), _f32(x2[i]), _f32(x3[i])
                o0[i] += a0 * y0 + a1 * y1 + a2 * y2 + a3 * y3
                o1[i] += b0 * y0 + b1 * y1 + b2 * y2 + b3 * y3
                o2[i] += u0 * y0 + u1 * y1 + u2 * y2 + u3 * y3
                o3[i] += e0 * y0 + e1 * y1 + e2 * y2 + e3 * y3
        for d in range(fours, terms):
            y = x[d]
            for i in range(width):
                o0[i] += w0[d] * _f32(y[i])
                o1[i] += w1[d] * _f32(y[i])
                o2[i] += w2[d] * _f32(y[i])
                o3[i] += w3[d] * _f32(y[i])
    for r in range(rows // 4 * 4, rows):
        o, w = out[r], weights[r]
        for d in range(0, eights, 8):
            x0, x1, x2, x3, x4, x5, x6, x7 = x[d], x[d + 1], x[d + 2], x[d + 3], x[d + 4], x[d + 5], x[d + 6], x[d + 7]
            a0, a1, a2, a3, a4, a5, a6, a7 = w[d], w[d + 1], w[d + 2], w[d + 3], w[d + 4], w[d + 5], w[d + 6], w[d + 7]
            for i in range(width):
                y0, y1, y2, y3 = _f32(x0[i]), _f32(x1[i]), _f32(x2[i]), _f32(x3[i])
                y4, y5, y6, y7 = _f32(x4[i]), _f32(x5[i]), _f32(x6[i]), _f32(x7[i])
                o[i] += (a0 * y0 + a1 * y1 + a2 * y2 + a3 * y3) + (a4 * y4 + a5 * y5 + a6 * y6 + a7 * y7)
        for d in range(eights, terms):
            y = x[d]
            for i in range(width):
                o[i] += w[d] * _f32(y[i])


@_loop
def _raise_top(logits: Array, r: int, size: int, top: Array, total: Array, out: Array) -> Any:
    """Row r's running maximum, these logits included; earlier sums are rescaled when it rises. out [parts, rows, width]."""
    highest = top[r]
    for i in range(size):
        highest = max(highest, logits[i])
    if highest > top[r]:
        shrink = np.float32(math.exp(top[r] - highest))
        top[r] = highest
        total[r] *= shrink
        for part in range(out.shape[0]):
            o = out[part, r]
            for i in range(o.shape[0]):
                o[i] *= shrink
    return highest


def _compiled(kernel: Callable[..., None], name: str) -> Any:
    """The kernel of one layout, under a name of its own.

    numba keeps what it compiled in files that it finds by the function's name. Two processes that compile functions of one
    name at once can each overwrite what the other one has listed, and the code of one layout, run on another, reads and
    writes anywhere.
    """
    kernel.__qualname__ = name
    return njit(cache=True, **_OPTIONS)(kernel)


@cache
def quantised(key_bits: int, value_bits: int, dim: int, value_dim: int, tile: int, width: int) -> Any:
    """The kernel for one layout of `quantise.Quantised` (its numbers are compile-time constants)."""
    parts = value_dim // width
    largest, scales = max(dim, value_dim) * tile, max(dim, tile)

    def kernel(
        share: int,  # which share of the work
        q: Array,  # [B * Hkv, rows, D] float32
        scale: float,
        keys: Array,  # [B, Hkv, tiles, bytes] uint8
        key_step: Array,  # [B, Hkv, groups, D] float16 bits
        key_zero: Array,
        owner: Array,  # [B, 1, tiles] int32
        values: Array,  # [B, Hkv, tiles, bytes] uint8
        value_step: Array,  # [B, Hkv or 1, tiles, parts * tile] float16 bits
        value_zero: Array,
        n: int,
        bias: Array,  # [B, Hkv, n], or empty
        extra: Array,  # [B * Hkv, rows, n], or empty
        kept: Array,  # [B * Hkv, rows, n] receives the final logits, or empty
        outs: Array,  # [shares, B * Hkv, rows, Dv]
        tops: Array,  # [shares, B * Hkv, rows]
        totals: Array,
    ) -> None:
        shares, heads, rows, hkv = outs.shape[0], q.shape[0], q.shape[1], keys.shape[1]
        tiles = (n + tile - 1) // tile
        first, last = heads * tiles * share // shares, heads * tiles * (share + 1) // shares
        buffer = np.empty(largest, np.float32)
        key_tile = buffer[: dim * tile].reshape(dim, tile)
        value_tile = buffer[: value_dim * tile].reshape(parts, tile, width)
        step, zero = np.empty(scales, np.float32), np.empty(scales, np.float32)
        folded, offset = np.empty((rows, dim), np.float32), np.empty(rows, np.float32)
        p, weights = np.empty((rows, tile), np.float32), np.empty((rows, tile), np.float32)
        out, zeros = np.empty((parts, rows, width), np.float32), np.empty((parts, rows, 1), np.float32)
        for head in range(heads):
            top, total = tops[share, head], totals[share, head]
            for r in range(rows):
                top[r], total[r] = FLOOR, np.float32(0)
                zeros[:, r], out[:, r] = np.float32(0), np.float32(0)
            row, h = head // hkv, head % hkv
            vh = h % value_step.shape[1]
            group = -1
            for t in range(max(first - head * tiles, 0), min(last - head * tiles, tiles)):
                start = t * tile
                stop = min(tile, n - start)
                if owner[row, 0, t] != group:  # q . (code * step + zero) = (q * step) . code + q . zero
                    group = owner[row, 0, t]
                    if group < 0 or group >= key_step.shape[2]:
                        raise IndexError("the owner of a tile of packed keys is no group; what is stored is damaged.")
                    _widen(key_step[row, h, group], step)
                    _widen(key_zero[row, h, group], zero)
                    for r in range(rows):
                        query, target, a = q[head, r], folded[r], np.float32(0)
                        for d in range(dim):
                            x = query[d] * np.float32(scale)
                            target[d] = x * step[d]
                            a += x * zero[d]
                        offset[r] = a
                _unpack(keys[row, h, t], key_bits, dim * tile, buffer)
                for r in range(rows):
                    logits = p[r]
                    for i in range(tile):
                        logits[i] = offset[r]
                _multiply_add(folded, key_tile, rows, dim, tile, p)
                for r in range(rows):
                    logits = p[r]
                    if extra.size:
                        for i in range(stop):
                            logits[i] += extra[head, r, start + i]
                    if bias.size:
                        for i in range(stop):
                            logits[i] += bias[row, h, start + i]
                    if kept.size:
                        for i in range(stop):
                            kept[head, r, start + i] = logits[i]
                    for i in range(stop, tile):
                        logits[i] = -np.float32(np.inf)
                    before = top[r]
                    highest = _raise_top(logits, r, tile, top, total, out)
                    if highest > before:
                        shrink = np.float32(math.exp(before - highest))
                        for part in range(parts):
                            zeros[part, r, 0] *= shrink
                    total[r] += _exponentials(logits, highest, tile)
                _unpack(values[row, h, t], value_bits, value_dim * tile, buffer)
                for part in range(parts):  # sum p (code * step + zero) = (p * step) . code + p . zero
                    _widen(value_step[row, vh, t, part * tile : (part + 1) * tile], step)
                    _widen(value_zero[row, vh, t, part * tile : (part + 1) * tile], zero)
                    for r in range(rows):
                        share_of, target, a = p[r], weights[r], np.float32(0)
                        for i in range(tile):
                            target[i] = share_of[i] * step[i]
                            a += share_of[i] * zero[i]
                        zeros[part, r, 0] += a
                    _multiply_add(weights, value_tile[part], rows, tile, width, out[part])
            for r in range(rows):
                for part in range(parts):
                    for i in range(width):
                        outs[share, head, r, part * width + i] = out[part, r, i] + zeros[part, r, 0]

    return _compiled(kernel, f"quantised_{key_bits}_{value_bits}_{dim}_{value_dim}_{tile}_{width}")


@_loop
def _dots(q: Array, keys: Array, rows: int, count: int, dim: int, out: Array) -> None:
    """out[:rows, :count] = q[:rows] @ keys[:count]^T; 4 rows x 4 keys, or 1 row x 4 keys, at a time."""
    fours = count // 4 * 4
    for r in range(0, rows // 4 * 4, 4):
        q0, q1, q2, q3 = q[r], q[r + 1], q[r + 2], q[r + 3]
        for j in range(0, fours, 4):
            k0, k1, k2, k3 = keys[j], keys[j + 1], keys[j + 2], keys[j + 3]
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = np.float32(0)
            u0 = u1 = u2 = u3 = e0 = e1 = e2 = e3 = np.float32(0)
            for d in range(dim):
                x0, x1, x2, x3 = _f32(k0[d]), _f32(k1[d]), _f32(k2[d]), _f32(k3[d])
                y0, y1, y2, y3 = q0[d], q1[d], q2[d], q3[d]
                a0, a1, a2, a3 = a0 + y0 * x0, a1 + y0 * x1, a2 + y0 * x2, a3 + y0 * x3
                b0, b1, b2, b3 = b0 + y1 * x0, b1 + y1 * x1, b2 + y1 * x2, b3 + y1 * x3
                u0, u1, u2, u3 = u0 + y2 * x0, u1 + y2 * x1, u2 + y2 * x2, u3 + y2 * x3
                e0, e1, e2, e3 = e0 + y3 * x0, e1 + y3 * x1, e2 + y3 * x2, e3 + y3 * x3
            out[r, j], out[r, j + 1], out[r, j + 2], out[r, j + 3] = a0, a1, a2, a3
            out[r + 1, j], out[r + 1, j + 1], out[r + 1, j + 2], out[r + 1, j + 3] = b0, b1, b2, b3
            out[r + 2, j], out[r + 2, j + 1], out[r + 2, j + 2], out[r + 2, j + 3] = u0, u1, u2, u3
            out[r + 3, j], out[r + 3, j + 1], out[r + 3, j + 2], out[r + 3, j + 3] = e0, e1, e2, e3
    for r in range(rows // 4 * 4, rows):
        y = q[r]
        for j in range(0, fours, 4):
            k0, k1, k2, k3 = keys[j], keys[j + 1], keys[j + 2], keys[j + 3]
            a0 = a1 = a2 = a3 = np.float32(0)
            for d in range(dim):
                x0, x1, x2, x3 = _f32(k0[d]), _f32(k1[d]), _f32(k2[d]), _f32(k3[d])
                a0, a1, a2, a3 = a0 + y[d] * x0, a1 + y[d] * x1, a2 + y[d] * x2, a3 + y[d] * x3
            out[r, j], out[r, j + 1], out[r, j + 2], out[r, j + 3] = a0, a1, a2, a3
    for r in range(rows):
        y = q[r]
        for j in range(fours, count):
            k, a = keys[j], np.float32(0)
            for d in range(dim):
                a += y[d] * _f32(k[d])
            out[r, j] = a


@cache
def runs(dim: int, value_dim: int, stored: str) -> Any:
    """The kernel for heads that each own a run of rows of flat buffers: float32, or bits (uint16) of bfloat16 numbers.

    Args:
        stored: name of what the buffers hold; part of the kernel's name.
    """

    def kernel(
        share: int,  # which share of the work
        q: Array,  # [heads, rows, D] float32
        scale: float,
        keys: Array,  # [total, D] float32 or bits
        values: Array,  # [total, Dv]
        starts: Array,  # [heads] int64: the first row of every head
        counts: Array,  # [heads] int64
        bias: Array,  # flat, or empty
        biases: Array,  # [heads] int64: where in it every head's begin
        outs: Array,  # [shares, heads, rows, Dv]
        tops: Array,  # [shares, heads, rows]
        totals: Array,
    ) -> None:
        shares, heads, rows = outs.shape[0], q.shape[0], q.shape[1]
        wide = rows + 1 if rows % 4 == 3 else rows  # four rows at once cost less than three, one after another
        entries = counts.sum()
        first, last = entries * share // shares, entries * (share + 1) // shares
        query, p = np.zeros((wide, dim), np.float32), np.zeros((wide, BLOCK), np.float32)
        out = np.empty((1, wide, value_dim), np.float32)
        before = 0
        for head in range(heads):
            top, total = tops[share, head], totals[share, head]
            for r in range(rows):
                top[r], total[r] = FLOOR, np.float32(0)
                out[0, r] = np.float32(0)
                for d in range(dim):
                    query[r, d] = q[head, r, d] * np.float32(scale)
            begin, end = max(first - before, 0), min(last - before, counts[head])
            before += counts[head]
            if starts[head] < 0 or counts[head] < 0 or starts[head] + counts[head] > min(keys.shape[0], values.shape[0]):
                raise IndexError("a head owns rows that its keys and values do not have.")
            for block in range(begin, end, BLOCK):
                at, size = starts[head] + block, min(BLOCK, end - block)
                _dots(query, keys[at : at + size], wide, size, dim, p)
                for r in range(rows):
                    logits = p[r]
                    if bias.size:
                        for i in range(size):
                            logits[i] += bias[biases[head] + block + i]
                    for i in range(size, BLOCK):
                        logits[i] = -np.float32(np.inf)
                    highest = _raise_top(logits, r, BLOCK, top, total, out)
                    total[r] += _exponentials(logits, highest, BLOCK)
                _multiply_add(p, values[at : at + size], wide, size, value_dim, out[0])
            for r in range(rows):
                for i in range(value_dim):
                    outs[share, head, r, i] = out[0, r, i]

    return _compiled(kernel, f"runs_{dim}_{value_dim}_{stored}")


@njit(cache=True, **_OPTIONS)
def combine(outs: Array, tops: Array, totals: Array, out: Array, lse: Array) -> None:
    """Merge the shares: outs [shares, heads, rows, Dv], tops, totals -> out [heads, rows, Dv], lse [heads, rows].

    A row that saw nothing gives zeros and -inf.
    """
    shares, heads, rows, dim = outs.shape
    for head in range(heads):
        for r in range(rows):
            top = tops[0, head, r]
            for share in range(1, shares):
                top = max(top, tops[share, head, r])
            total = np.float32(0)
            for share in range(shares):
                total += totals[share, head, r] * np.float32(math.exp(tops[share, head, r] - top))
            target = out[head, r]
            for i in range(dim):
                target[i] = np.float32(0)
            if total == 0:
                lse[head, r] = -np.float32(np.inf)
                continue
            lse[head, r] = top + np.float32(math.log(total))
            for share in range(shares):
                weight = np.float32(math.exp(tops[share, head, r] - top)) / total
                for i in range(dim):
                    target[i] += weight * outs[share, head, r, i]

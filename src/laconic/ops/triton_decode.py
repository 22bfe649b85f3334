"""Attention of few queries over a long stored part on a GPU: split flash decoding in Triton, exact, with its log-sum-exp.

What `ops.attend.attend` computes when every query sees every key, for dense, ragged and quantised storage, without copies: a
key read from memory serves all G x T query rows of its KV head, so the time is that of reading the part once. The entries
of a head are cut into chunks that run in parallel and are merged exactly (`triton_kernels.py`). Triton is imported on first
use; with TRITON_INTERPRET=1 set beforehand, the same kernels run on a CPU, slowly, which is how they are tested without a
GPU.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from laconic.ops.quantise import Quantised

_DTYPES = torch.float32, torch.float16, torch.bfloat16
_TILE_BYTES = 1 << 14  # of one tile of keys: two tiles and their prefetched loads fit every card's shared memory
_TILE_ENTRIES = 128
_LEAST_CHUNK = 128  # entries: with fewer, starting a program costs more than its work
_PROGRAMS = 4  # per multiprocessor: enough loads in flight to hide the memory's latency
_MERGE = 16  # chunks merged at a time
_LAUNCH = {"num_warps": 4, "num_stages": 2}


def available(q: torch.Tensor, *stored: torch.Tensor) -> bool:
    """Whether these kernels can attend with queries q [..., D] over stored keys and values.

    They need Triton, a CUDA device of compute capability 8.0 or newer (or TRITON_INTERPRET=1 and CPU tensors), fp32, fp16 or
    bf16, D up to 256, and no gradients: they have no backward pass.
    """
    device = q.device
    if device.type != "cuda" and not (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return False
    if not _installed() or q.dtype not in _DTYPES or q.shape[-1] > 256:
        return False
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, *stored)):
        return False
    return device.type == "cpu" or torch.cuda.get_device_capability(device) >= (8, 0)


@cache
def _installed() -> bool:
    return find_spec("triton") is not None


def attend_dense(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    *,
    bias: torch.Tensor | None = None,
    softcap: float | None = None,
    chunk: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [B, H, T, D], k [B, Hkv, n, D], v [B, Hkv, n, Dv], any strides -> output [B, H, T, Dv], lse [B, H, T] (fp32).

    Args:
        bias: additive logits per key, broadcastable to [B, Hkv, n]; -inf hides a key. A query that sees nothing returns
            zeros and lse = -inf.
        softcap: ``softcap * tanh(logits / softcap)`` before the bias.
        chunk: entries that one program reads (rounded up to whole tiles); None spreads them over the device.
    """
    b, hkv, n, d = k.shape
    if bias is not None:
        bias = bias.expand(b, hkv, n)
    job = _Job(q, b * hkv, v.shape[-1], n, b * hkv * n, _block(d, k.dtype), chunk)
    strides = _strides("bhnd", k=k, v=v) | _strides("bhn", bias=bias)
    return job.run(
        "decode", None, k.dtype, k=k, v=v, bias=bias, starts=None, scale=scale, softcap=softcap, hkv=hkv, **strides
    )


def attend_ragged(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    starts: torch.Tensor,
    counts: torch.Tensor,
    scale: float,
    *,
    longest: int | None = None,
    bias: torch.Tensor | None = None,
    softcap: float | None = None,
    chunk: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [B, H, T, D] over flat keys [rows, D], values [rows, Dv] -> output [B, H, T, Dv], lse [B, H, T] (fp32).

    Args:
        starts: first row of every head, integers [B x Hkv] on any device.
        counts: entries of every head, integers [B x Hkv] on any device; an empty head gives zeros and lse = -inf.
        longest: the largest of `counts`; None reads it from them, which synchronises with the device unless they are on the
            CPU.
        bias: additive logits per row of the buffers [rows].
        softcap, chunk: as in `attend_dense`.
    """
    rows, d = keys.shape
    longest = int(counts.max()) if longest is None else longest
    starts, counts = starts.to(q.device, non_blocking=True), counts.to(q.device, non_blocking=True)
    job = _Job(q, starts.numel(), values.shape[-1], longest, rows, _block(d, keys.dtype), chunk)
    k, v, bias = keys[None, None], values[None, None], None if bias is None else bias[None, None]
    strides = _strides("bhnd", k=k, v=v) | _strides("bhn", bias=bias)
    return job.run(
        "decode", counts, k.dtype, k=k, v=v, bias=bias, starts=starts, scale=scale, softcap=softcap, hkv=1, **strides
    )


def readable(keys: Quantised, values: Quantised) -> bool:
    """Whether `attend_quantised` reads this layout: equal tiles of a power of two up to 128 tokens, value groups of a power
    of two or of the whole head."""
    equal = (keys.tile, keys.length) == (values.tile, values.length)
    whole = values.width in (_power(values.width), values.head_dim)
    return equal and whole and keys.tile == _power(keys.tile) <= _TILE_ENTRIES


def attend_quantised(
    q: torch.Tensor,
    keys: Quantised,
    values: Quantised,
    scale: float,
    *,
    bias: torch.Tensor | None = None,
    softcap: float | None = None,
    chunk: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [B, H, T, D] over n packed keys and values [B, Hkv, n, D] -> output [B, H, T, D], lse [B, H, T] (fp32).

    Codes of 2, 3, 4 or 8 bits become numbers in registers; the matrix products run in the type of q.

    Args:
        bias, softcap, chunk: as in `attend_dense`.

    Raises:
        ValueError: the layout is not `readable`.
    """
    n, tile, width = keys.length, keys.tile, values.width
    if not readable(keys, values):
        raise ValueError(
            f"keys: {n} tokens in tiles of {tile}; values: {values.length} in tiles of {values.tile}, groups of {width} "
            f"channels. The Triton kernels read equal tiles of a power of two up to {_TILE_ENTRIES} tokens, and value "
            "groups of a power of two or the whole head; quantise that way, or attend with ops.fused."
        )
    b, hkv = keys.stored("codes").shape[:2]
    parts = {"k": keys.stored("codes"), "k_step": keys.stored("step"), "k_zero": keys.stored("zero")}
    parts |= {"v": values.stored("codes"), "v_step": values.stored("step"), "v_zero": values.stored("zero")}
    parts = {name: x.expand(b, hkv, -1, -1) for name, x in parts.items()}  # all heads may share one value group
    owner, bias = keys.stored("owner"), None if bias is None else bias.expand(b, hkv, n)
    strided = {name: x for name, x in parts.items() if "zero" not in name}  # zeros are laid out like steps
    strides = _strides("bhn", **strided, bias=bias) | {"owner_b": owner.stride(0)}
    block = max(tile, _block(keys.head_dim, q.dtype))
    job = _Job(q, b * hkv, values.head_dim, n, b * hkv * n, block, chunk)
    layout = {"WIDTH": width, "WP": width if width < values.head_dim else _width(width), "TILE": tile}
    layout |= {"BITS_K": keys.bits, "BITS_V": values.bits}
    special = {"owner": owner, "bias": bias, "scale": scale, "softcap": softcap, "hkv": hkv}
    return job.run("decode_quantised", None, q.dtype, **parts, **special, **strides, **layout)


class _Job:
    """One attention: the query rows of every KV head, and how the entries are cut into programs."""

    def __init__(self, q: torch.Tensor, heads: int, dv: int, longest: int, total: int, block: int, chunk: int | None):
        """`heads` KV heads of all batch rows, up to `longest` entries each, about `total` together, in tiles of `block`."""
        if chunk is None:
            chunk = max(_LEAST_CHUNK, total // (_PROGRAMS * _multiprocessors(q.device)))
        elif chunk < 1:
            raise ValueError(f"chunk={chunk}: entries per program, at least 1; None spreads them over the device")
        self.q, self.heads, self.dv, self.longest, self.block = q.contiguous(), heads, dv, longest, block
        self.rows = q.shape[0] * q.shape[1] * q.shape[2] // heads
        self.chunk = -(-chunk // block) * block
        self.splits = max(1, -(-longest // self.chunk))

    def run(
        self, kernel: str, counts: torch.Tensor | None, dtype: torch.dtype, **special: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Launch `kernel` and, if any head was cut, `merge` -> output [B, H, T, Dv], lse [B, H, T]."""
        kernels = import_module("laconic.ops.triton_kernels")
        b, h, t, d = self.q.shape
        tile = min(max(_power(self.rows), 16), 64 if d <= 128 else 32)  # what tensor cores need, what registers hold
        cut = {"counts": counts, "n": self.longest, "chunk": self.chunk, "splits": self.splits, "rows": self.rows}
        cut |= {"DV": self.dv, "DVP": _width(self.dv)}
        shapes = {"D": d, "DP": _width(d), "ROWS": tile, "BLOCK": self.block, "DOT": kernels.product_type(dtype)}
        out, lse = self._results(self.splits)
        with torch.cuda.device_of(self.q):
            grid = self.heads, self.splits, -(-self.rows // tile)
            getattr(kernels, kernel)[grid](q=self.q, out=out, lse=lse, **special, **cut, **shapes, **_LAUNCH)
            if self.splits > 1:
                parts, part_lse = out, lse
                out, lse = self._results(1)
                kernels.merge[self.heads, self.rows](parts, part_lse, out=out, lse=lse, BLOCK=_MERGE, **cut)
        return out.view(b, h, t, self.dv), lse.view(b, h, t)

    def _results(self, splits: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Room for every head's outputs [heads, splits, rows, Dv] (fp32 where they are still to be merged) and lse."""
        out = self.q.new_empty(self.heads, splits, self.rows, self.dv, dtype=self.q.dtype if splits == 1 else torch.float32)
        return out, torch.empty(out.shape[:3], dtype=torch.float32, device=out.device)


def _strides(axes: str, **tensors: torch.Tensor | None) -> dict[str, int]:
    """Strides of the leading axes under the kernels' names (`k_b`, `k_h`, ...); 0 where there is no tensor."""
    named = ((name, axis, x, i) for name, x in tensors.items() for i, axis in enumerate(axes))
    return {f"{name}_{axis}": 0 if x is None else x.stride(i) for name, axis, x, i in named}


def _block(d: int, dtype: torch.dtype) -> int:
    """Entries read at a time."""
    return min(max(_TILE_BYTES // (_width(d) * dtype.itemsize), 16), _TILE_ENTRIES)


def _width(d: int) -> int:
    """Channels of a tile: a power of two that the tensor cores take."""
    return max(16, _power(d))


def _power(x: int) -> int:
    return 1 << (x - 1).bit_length()


def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1

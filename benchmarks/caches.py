"""laconic caches for `speed.py`: filled with random entries, or shortened by a method's selection from such."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from common import DTYPES, HEAD, HEADS, KV_HEADS, LAYERS, clock, decode

import laconic
from laconic.cache.cache import CompressedCache
from laconic.cache.layer import Pass
from laconic.cache.parts.base import DensePart
from laconic.step import Step


def kv_bytes(tokens: int, dtype: str) -> int:
    return 2 * LAYERS * KV_HEADS * HEAD * tokens * DTYPES[dtype].itemsize


def filled(lm: Any, kv: list[tuple[torch.Tensor, torch.Tensor]]) -> CompressedCache:
    """A compressed cache that holds everything."""
    cache, tokens = CompressedCache(lm.config), kv[0][0].shape[2]
    for layer, (keys, values) in zip(cache.compressed(), kv, strict=True):
        layer.lazy_initialization(keys, values)
        layer.parts, layer.seen = [DensePart(keys, values, {})], tokens
    cache.real = [tokens]
    return cache


def shortened(lm: Any, method: laconic.Method, kv: list[tuple[torch.Tensor, torch.Tensor]]) -> CompressedCache:
    """A compressed cache after the method's own selection from random keys, values and queries."""
    tokens = kv[0][0].shape[2]
    session = laconic.compress(lm, method)
    cache = session._adopt(None)
    cache.step = Step(0, tokens, torch.arange(tokens)[None], [tokens])
    for layer, (keys, values) in zip(cache.compressed(), kv, strict=True):
        layer.lazy_initialization(keys, values)
        queries = torch.randn(1, HEADS, tokens, HEAD, dtype=keys.dtype)
        layer.seen = tokens
        cache.after_prefill(layer, Pass(queries, keys, values, {}, HEAD**-0.5, None))
    cache.step, cache.real = None, [tokens]
    return cache


def decoder(lm: Any, held: Any, method: laconic.Method | None = None, steps: int = 5) -> Callable[[], float]:
    """Median seconds of a few decoded tokens of the whole model, on a compressed cache inside a session."""

    def run() -> float:
        with laconic.compress(lm, *([] if method is None else [method])):
            return statistics.median(clock(lambda: decode(lm, held)) for _ in range(steps))

    return run


def weights_bytes(lm: Any) -> int:
    """Bytes of the weights that one decoded token reads (the embedding is one row)."""
    return sum(p.nbytes for p in lm.parameters()) - lm.model.embed_tokens.weight.nbytes

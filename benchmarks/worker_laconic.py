"""Worker of `peer_kvpress.py` and `memory.py` for laconic and for stock transformers: JSON requests on stdin, one per line.

`method` is ``stock`` (transformers' own cache and attention), ``none`` (a session that removes nothing) or a method's name.
Not called by hand.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from common import clock, decode, memory, model, prefill, prompt, reset_peak, serve
from transformers import DynamicCache

import laconic
from laconic.method import create

MODELS: dict[tuple[str, int], Any] = {}
SLOTS: dict[str, tuple[str, Any, Any]] = {}
PEER = {"snapkv": {"window": 32, "kernel": 5}, "adakv": {"scorer": "snapkv:window=32,kernel=5"}}
"""Parameters that match the peer's."""


def session(lm: Any, name: str, keep: float) -> laconic.Session:
    if name == "none":
        return laconic.compress(lm)
    return laconic.compress(lm, create(name, keep=keep, **PEER.get(name, {})))


def run(lm: Any, name: str, tokens: int, keep: float) -> tuple[Any, float, float]:
    """-> cache, seconds of the prefill, seconds inside the method."""
    ids = prompt(tokens)
    if name == "stock":
        cache = DynamicCache(config=lm.config)
        return cache, clock(lambda: prefill(lm, ids, cache)), 0.0
    with session(lm, name, keep) as active:
        seconds = clock(lambda: prefill(lm, ids))
        return active.cache, seconds, active.stats.compress_seconds


def stored(cache: Any) -> int:
    if type(cache) is DynamicCache:
        layers: Any = cache.layers
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    return int(cache.nbytes)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    key = (request.get("dtype", "fp32"), request.get("layers", 8))
    if key not in MODELS:
        MODELS[key] = model(*key)
    lm = MODELS[key]
    if request["do"] == "prefill":
        _, seconds, own = run(lm, request["method"], request["tokens"], request["keep"])
        return {"seconds": seconds, "own": own}
    if request["do"] == "load":
        cache, _, _ = run(lm, request["method"], request["tokens"], request["keep"])
        SLOTS[request["slot"]] = (request["method"], lm, cache)
        return {"bytes": stored(cache)}
    if request["do"] == "decode":
        name, lm, cache = SLOTS[request["slot"]]
        if name == "stock":
            return {"seconds": [clock(lambda: decode(lm, cache)) for _ in range(request["steps"])]}
        with session(lm, name, request["keep"]):
            return {"seconds": [clock(lambda: decode(lm, cache)) for _ in range(request["steps"])]}
    if request["do"] == "memory":
        run(lm, "stock" if request["method"] == "stock" else "none", 64, 1.0)
        before = memory("VmRSS")
        reset_peak()
        cache, _, _ = run(lm, request["method"], request["tokens"], request["keep"])
        return {"peak": memory("VmHWM") - before, "kept": stored(cache)}
    raise ValueError(request["do"])


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    warnings.simplefilter("ignore")
    serve(answer)

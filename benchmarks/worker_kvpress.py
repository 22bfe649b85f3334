"""Worker of `peer_kvpress.py` and `memory.py` in kvpress's environment: answers requests on stdin, one JSON object per line.

Imports kvpress and transformers only. Not called by hand.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

import torch
from common import clock, decode, memory, model, prefill, prompt, reset_peak, serve
from kvpress import (
    AdaKVPress,
    ExpectedAttentionPress,
    KeyDiffPress,
    KnormPress,
    ObservedAttentionPress,
    SnapKVPress,
    TOVAPress,
)
from transformers import DynamicCache

MODELS: dict[tuple[str, int, str], Any] = {}
SLOTS: dict[str, tuple[Any, Any, list[Any]]] = {}


def press(name: str, removed: float) -> Any:
    """A press that removes this share."""
    if name == "adakv":
        return AdaKVPress(SnapKVPress(compression_ratio=removed, window_size=32, kernel_size=5))
    if name == "snapkv":
        return SnapKVPress(compression_ratio=removed, window_size=32, kernel_size=5)
    kinds = {
        "expected_attention": ExpectedAttentionPress,
        "keydiff": KeyDiffPress,
        "knorm": KnormPress,
        "tova": TOVAPress,
        "h2o": ObservedAttentionPress,
    }
    return kinds[name](compression_ratio=removed)


def run(lm: Any, name: str, tokens: int, keep: float) -> tuple[Any, float, float]:
    """-> cache, seconds of the prefill, seconds inside the press."""
    cache, ids, own = DynamicCache(), prompt(tokens), [0.0]
    if name == "none":
        return cache, clock(lambda: prefill(lm, ids, cache)), 0.0
    method = press(name, 1 - keep)
    hook = method.forward_hook

    def timed(*args: Any) -> Any:
        began = time.perf_counter()
        output = hook(*args)
        own[0] += time.perf_counter() - began
        return output

    method.forward_hook = timed
    with method(lm):
        seconds = clock(lambda: prefill(lm, ids, cache))
    return cache, seconds, own[0]


def masks(lm: Any) -> list[Any]:
    return [getattr(layer.self_attn, "masked_key_indices", None) for layer in lm.model.layers]


def answer(request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "versions":
        return {"kvpress": version("kvpress"), "transformers": version("transformers"), "torch": torch.__version__}
    attention = "eager" if request.get("method") == "h2o" or request.get("eager") else "sdpa"
    key = (request.get("dtype", "fp32"), request.get("layers", 8), attention)
    if key not in MODELS:
        MODELS[key] = model(*key)
    lm = MODELS[key]
    if request["do"] == "prefill":
        _, seconds, own = run(lm, request["method"], request["tokens"], request["keep"])
        return {"seconds": seconds, "own": own}
    if request["do"] == "load":
        cache, _, _ = run(lm, request["method"], request["tokens"], request["keep"])
        SLOTS[request["slot"]] = (lm, cache, masks(lm))
        kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        return {"bytes": kept, "entries": cache.layers[0].keys.shape[2]}
    if request["do"] == "decode":
        lm, cache, masked = SLOTS[request["slot"]]
        for layer, indices in zip(lm.model.layers, masked, strict=True):
            layer.self_attn.masked_key_indices = indices
        return {"seconds": [clock(lambda: decode(lm, cache)) for _ in range(request["steps"])]}
    if request["do"] == "memory":
        prefill(lm, prompt(64), DynamicCache())
        before = memory("VmRSS")
        reset_peak()
        cache, _, _ = run(lm, request["method"], request["tokens"], request["keep"])
        peak = memory("VmHWM") - before
        return {"peak": peak, "kept": sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)}
    raise ValueError(request["do"])


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    serve(answer)

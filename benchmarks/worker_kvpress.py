"""Worker of `peer_kvpress.py`, `memory.py` and `agree_kvpress.py` in kvpress's environment: answers requests on stdin, one
JSON object per line.

Imports kvpress and transformers only. Not called by hand.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
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
    PyramidKVPress,
    SnapKVPress,
    StreamingLLMPress,
    TOVAPress,
)
from subjects import ALPHA, BETA, EPSILON, FUTURE, KERNEL, RAGGED, SINKS, WINDOW, row, subject
from transformers import DynamicCache

MODELS: dict[tuple[str, int, str], Any] = {}
SLOTS: dict[str, tuple[Any, Any, list[Any]]] = {}
PLACES: dict[tuple[int, tuple[int, ...]], list[list[dict[bytes, int]]]] = {}


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


def same_press(name: str, removed: float) -> Any:
    """A press with the parameters of `subjects`."""
    view = {"window_size": WINDOW, "kernel_size": KERNEL}
    ahead = {"n_future_positions": FUTURE, "n_sink": SINKS}
    if name == "adakv":
        return AdaKVPress(SnapKVPress(removed, **view), alpha_safeguard=ALPHA)
    if name == "adakv_expected":
        return AdaKVPress(ExpectedAttentionPress(removed, epsilon=EPSILON, **ahead), alpha_safeguard=ALPHA)
    own: dict[str, Any] = {
        "snapkv": lambda: SnapKVPress(removed, **view),
        "pyramidkv": lambda: PyramidKVPress(removed, beta=BETA, **view),
        "expected_attention": lambda: ExpectedAttentionPress(removed, **ahead),
        "streaming_llm": lambda: StreamingLLMPress(removed, n_sink=SINKS),
    }
    return own[name]() if name in own else press(name, removed)


def places(lm: Any, ids: list[int]) -> list[list[dict[bytes, int]]]:
    """Key bytes -> token, for every layer and head of an uncompressed pass: RoPE makes every key another one."""
    key = (id(lm), tuple(ids))
    if key not in PLACES:
        cache = DynamicCache()
        prefill(lm, row(ids), cache)
        PLACES[key] = [
            [{k.numpy().tobytes(): i for i, k in enumerate(head)} for head in layer.keys[0]] for layer in cache.layers
        ]
        if any(len(head) < len(ids) for layer in PLACES[key] for head in layer):
            raise ValueError("two tokens have equal keys")
    return PLACES[key]


def kept_tokens(request: dict[str, Any]) -> dict[str, Any]:
    """Token indices that every layer and head keeps of every prompt: found by their keys, or what AdaKV's mask leaves."""
    name, out = request["method"], []
    lm = subject(request["model"], "eager" if name == "h2o" else "sdpa")
    for ids in request["prompts"]:
        known = [] if name in RAGGED else places(lm, ids)
        cache = DynamicCache()
        with same_press(name, 1 - request["keep"])(lm):
            prefill(lm, row(ids), cache)
        if name in RAGGED:
            stays = [torch.ones(lm.config.num_key_value_heads, len(ids), dtype=torch.bool) for _ in lm.model.layers]
            for stay, (_, heads, tokens) in zip(stays, masks(lm), strict=True):
                stay[heads, tokens] = False
            out.append([[head.nonzero()[:, 0].tolist() for head in stay] for stay in stays])
        else:
            pairs = [(layer.keys[0], where) for layer, where in zip(cache.layers, known, strict=True)]
            out.append(
                [
                    [sorted(w[k.numpy().tobytes()] for k in head) for head, w in zip(keys, where, strict=True)]
                    for keys, where in pairs
                ]
            )
    return {"kept": out}


def answers(request: dict[str, Any]) -> dict[str, Any]:
    """Greedy answers: the press around the whole prompt (aware), or around the context alone.

    The question is read token by token: a causal mask for several tokens is built for the first layer's length, and
    PyramidKV's layers differ in length.
    """
    name, out = request["method"], []
    lm = subject(request["model"], "eager" if name == "h2o" else "sdpa")
    for context, question, room in request["prompts"]:
        first, then = (context + question, []) if request["mode"] == "aware" else (context, question)
        cache, new = DynamicCache(), []
        with nullcontext() if name == "none" else same_press(name, 1 - request["keep"])(lm):
            logits = prefill(lm, row(first), cache).logits
        at = len(first)
        for token in then:
            logits, at = step(lm, token, at, cache), at + 1
        while True:
            new.append(int(logits[0, -1].argmax()))
            if new[-1] == lm.config.eos_token_id or len(new) == room:
                break
            logits, at = step(lm, new[-1], at, cache), at + 1
        out.append(new)
    return {"answers": out}


def step(lm: Any, token: int, position: int, cache: Any) -> torch.Tensor:
    """Logits behind one token at its true position, which the compressed cache does not know."""
    logits: torch.Tensor = lm(row([token]), past_key_values=cache, position_ids=row([position]), use_cache=True).logits
    return logits


def answer(request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] in ("kept", "ask"):
        return kept_tokens(request) if request["do"] == "kept" else answers(request)
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

"""Worker of `peer_kvpress.py` and `memory.py` for laconic and for stock transformers: JSON requests on stdin, one per line.

`method` is ``stock`` (transformers' own cache and attention), ``none`` (a session that removes nothing) or a method's name.
Not called by hand.
"""

from __future__ import annotations

import warnings
from typing import Any

import aligned
import torch
from common import clock, decode, memory, model, prefill, prompt, reset_peak, serve
from subjects import row, subject
from transformers import DynamicCache

import laconic
from laconic.method import create_method

MODELS: dict[tuple[str, int], Any] = {}
SLOTS: dict[str, tuple[str, Any, Any]] = {}
PEER = {"snapkv": {"window": 32, "kernel": 5}, "adakv": {"scorer": "snapkv:window=32,kernel=5"}}
"""Parameters that match the peer's."""


def session(lm: Any, name: str, keep: float) -> laconic.Session:
    if name == "none":
        return laconic.compress(lm)
    return laconic.compress(lm, create_method(name, keep=keep, **PEER.get(name, {})))


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


def kept_tokens(request: dict[str, Any]) -> dict[str, Any]:
    """Token indices that every layer and head keeps of every prompt, and the ranks [layer][head][n] that chose them."""
    lm, out, all_ranks = subject(request["model"]), [], []
    for ids in request["prompts"]:
        method = aligned.method(request["method"], request["keep"], request.get("aligned", False))
        ranks: list[Any] = []
        rank = method.rank

        def noted(seen: Any, rank: Any = rank, ranks: list[Any] = ranks) -> torch.Tensor:
            scores: torch.Tensor = rank(seen)
            ranks.append(scores[0].tolist())
            return scores

        method.rank = noted  # type: ignore[method-assign]
        with laconic.compress(lm, method) as active:
            prefill(lm, row(ids))
            heads = range(lm.config.num_key_value_heads)
            out.append([[active.kept(i, h).tolist() for h in heads] for i in range(lm.config.num_hidden_layers)])
        all_ranks.append(ranks)
    return {"kept": out, "ranks": all_ranks}


def answers(request: dict[str, Any]) -> dict[str, Any]:
    """Greedy answers: the whole prompt compressed (aware), or the context alone and the question stored whole."""
    lm, out = subject(request["model"]), []
    for context, question, room in request["prompts"]:
        methods = [] if request["method"] == "none" else [aligned.method(request["method"], request["keep"])]
        ids = row(context + question)
        few = {"max_new_tokens": room, "do_sample": False}
        with laconic.compress(lm, *methods) as active:
            if request["mode"] == "aware":
                new = lm.generate(ids, **few)
            else:
                prefill(lm, row(context))
                with active.hold():
                    new = lm.generate(ids, past_key_values=active.cache, **few)
        out.append(new[0, ids.shape[1] :].tolist())
    return {"answers": out}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] in ("kept", "ask"):
        return kept_tokens(request) if request["do"] == "kept" else answers(request)
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

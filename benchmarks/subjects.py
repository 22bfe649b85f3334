"""What both sides of `agree_kvpress.py` are given: the models, and the parameters under which a method is the same in both.

Imports what `common.py` imports, so that it works in the peer's own environment, too.
"""

from __future__ import annotations

from typing import Any

import torch
from common import model
from transformers import AutoModelForCausalLM
from transformers.utils import logging

WINDOW, KERNEL, SINKS, FUTURE, ALPHA, BETA, EPSILON = 32, 5, 4, 512, 0.2, 20, 0.01
"""Window and average pooling of snapkv, adakv, pyramidkv; sinks of streaming_llm and expected_attention; positions that
expected_attention looks ahead; adakv's safe share; pyramidkv's slope; what adakv adds to expected attention."""

METHODS = {
    "snapkv": f"window {WINDOW}, average pooling {KERNEL}",
    "adakv": f"alpha {ALPHA} over snapkv (window {WINDOW}, average pooling {KERNEL})",
    "adakv_expected": f"alpha {ALPHA} over expected attention (epsilon {EPSILON})",
    "pyramidkv": f"beta {BETA}, window {WINDOW}, average pooling {KERNEL}",
    "expected_attention": f"{FUTURE} positions ahead, {SINKS} sinks, epsilon 0, covariance, value norms",
    "keydiff": "one pass, no blocks",
    "knorm": "no layer skipped",
    "tova": "prefill",
    "streaming_llm": f"{SINKS} sinks, positions as they were",
    "h2o": "sums over all queries divided by the number that can see an entry; eager attention in kvpress",
}
"""Method -> its parameters, the same on both sides."""
RAGGED = ("adakv", "adakv_expected")

_LOADED: dict[tuple[str, str], Any] = {}


def subject(name: str, attention: str = "sdpa") -> Any:
    """``"random"``, the benchmark model, or the checkpoint in a folder, in fp32, on one thread: nothing is timed here."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    if (name, attention) not in _LOADED:
        if name == "random":
            lm: Any = model(attention=attention)
        else:
            lm = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, attn_implementation=attention).eval()
        _LOADED[name, attention] = lm
    return _LOADED[name, attention]


def row(ids: list[int]) -> torch.Tensor:
    """Token ids as a batch of one, [1, T]."""
    return torch.tensor([ids])

"""A few passes before anything is measured, so that no run is charged for first-call costs."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any

import torch
from transformers import PreTrainedModel

from laconic.cache.quantiser import HeadSizes
from laconic.errors import LaconicError
from laconic.method import Method
from laconic.ops import compiled
from laconic.prompts.inputs import on_device
from laconic.prompts.text import Prompt
from laconic.session import Session

TOKENS = 128


def warm_up(model: PreTrainedModel, prompt: Prompt, methods: Sequence[Method] = ()) -> None:
    """Run a few of the prompt's tokens through the stock model and through a session, and its images through the encoder."""
    some = prompt.question * TOKENS if prompt.inputs else prompt.ids  # a placeholder without its image would be refused
    ids = torch.tensor([some[: min(TOKENS, prompt.tokens)]], device=model.device)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if prompt.inputs:
            _encode(model, prompt)
        for wanted in (None, methods):
            # a budget may be too small for these few tokens; where that matters, the real run reports it
            with suppress(LaconicError), nullcontext() if wanted is None else Session(model, wanted):
                cache = model(ids, use_cache=True, logits_to_keep=1).past_key_values
                model(ids[:, -1:], past_key_values=cache, use_cache=True)
        _load_loops(model, prompt.tokens)


def _load_loops(model: PreTrainedModel, tokens: int) -> None:
    """Load the compiled loops of decode attention, or compile them, where caches of so many tokens need them."""
    heads = HeadSizes.of(model)
    like = torch.empty(0, dtype=model.dtype, device=model.device)
    q, k = like.new_empty(1, heads.queries, 1, heads.size), like.new_empty(1, heads.kv, tokens, heads.size)
    if compiled.serves(q, k, k):
        compiled.attend_dense(q, k[:, :, :1], k[:, :, :1], 1.0)


def _encode(model: PreTrainedModel, prompt: Prompt) -> None:
    """Run the prompt's images and video through the vision encoder and its projector; the output is discarded."""
    given = on_device(model, prompt.inputs)
    for pixels, kind in (("pixel_values", "image"), ("pixel_values_videos", "video")):
        features: Any = getattr(model, f"get_{kind}_features", None)
        if pixels in given and features is not None:
            wanted = inspect.signature(features).parameters
            features(**{name: value for name, value in given.items() if name in wanted})

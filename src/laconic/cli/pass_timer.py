"""Times the passes of a model, and calls back when its cache holds the whole prompt."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache


class PassTimer:
    """Hooks on the model: times passes as the session does, and calls back once when the whole prompt has been read."""

    def __init__(self, model: PreTrainedModel, prompt_tokens: int, ready: Callable[[Cache], None]):
        self.prompt_tokens, self.ready, self.done = prompt_tokens, ready, False
        self.prefill_seconds = self.decode_seconds = 0.0
        self.decoded = 0
        self._prefill, self._clock = True, 0.0
        self._handles = [
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self._after),
        ]

    def _before(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        cache, ids = kwargs.get("past_key_values"), kwargs["input_ids"]
        seen = 0 if cache is None else cache.get_seq_length()
        if seen >= self.prompt_tokens:
            self.finish(cache)
        self._prefill = ids.shape[1] > 1 or seen == 0
        self._clock = time.perf_counter()

    def _after(self, module: Any, args: Any, output: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._clock
        if self._prefill:
            self.prefill_seconds += seconds
        else:
            self.decode_seconds += seconds
            self.decoded += 1

    def finish(self, cache: Any) -> None:
        """The prompt is in the cache; called at the first pass after it, or by the caller when there is none."""
        if not self.done:
            self.done = True
            self.ready(cache)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

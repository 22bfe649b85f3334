"""When the tokens of an answer come out of `generate()`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import StoppingCriteria, TextStreamer


class TokenClock(StoppingCriteria):
    """Stops nothing; notes when the first and the last token came out, for batches of any size and for beams.

    A stopping criterion, because transformers calls these after every token, and streamers only where there is one beam.

    Args:
        at_first: called when the first token has come out: the whole prompt is in the cache and nothing has been decoded.

    Attributes:
        first, last: of `time.perf_counter()`; 0 before there is a token.
    """

    def __init__(self, at_first: Callable[[], None]):
        self._at_first, self._began = at_first, False
        self.first = self.last = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:  # type: ignore[override]
        self.last = time.perf_counter()
        if not self._began:
            self._began, self.first = True, self.last
            self._at_first()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class Words(TextStreamer):
    """Calls back with every finished piece of an answer's text, the prompt and special tokens left out."""

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None]):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._on_text = on_text

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self._on_text(text)

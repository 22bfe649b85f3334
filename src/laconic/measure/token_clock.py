"""When the tokens of an answer come out of `generate()`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TextStreamer
from transformers.generation.streamers import BaseStreamer


class TokenClock(BaseStreamer):
    """A streamer that notes when the first and the last token came out, for batches of any size.

    Args:
        at_first: called when the first token has come out: the whole prompt is in the cache and nothing has been decoded.
        words: also gets every token, but not the prompt.

    Attributes:
        first, last: of `time.perf_counter()`; 0 before there is a token.
    """

    def __init__(self, at_first: Callable[[], None], words: BaseStreamer | None = None):
        self._at_first, self._words = at_first, words
        self._calls = 0
        self.first = self.last = 0.0

    def put(self, value: torch.Tensor) -> None:
        self._calls += 1
        if self._calls == 1:  # generate() hands over the prompt before anything else
            return
        self.last = time.perf_counter()
        if self._calls == 2:
            self.first = self.last
            self._at_first()
        if self._words is not None:
            self._words.put(value)

    def end(self) -> None:
        if self._words is not None:
            self._words.end()


class Words(TextStreamer):
    """Calls back with every finished piece of an answer's text, special tokens left out."""

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None]):
        super().__init__(tokenizer, skip_special_tokens=True)
        self._on_text = on_text

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self._on_text(text)

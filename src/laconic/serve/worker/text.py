"""Text from tokens that come one at a time: whole characters only, and nothing of what might become a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

UNFINISHED = "\ufffd"
"""What a tokenizer writes for the bytes of a character that is not complete yet."""


class TextStream:
    """The text of one answer.

    Args:
        stops: the answer ends before the first of these.

    Attributes:
        stopped: a stop string has been met; nothing more is given out.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()):
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._ids: list[int] = []
        self._from, self._read = 0, 0  # ids before `_read` are text by now; those from `_from` on say how the next ones join
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that is certain now that `token` has come."""
        self._ids.append(token)
        new = self._new()
        if not new or new.endswith(UNFINISHED):
            return ""
        self._from, self._read = self._read, len(self._ids)
        return self._release(new)

    def finish(self) -> str:
        """The answer has ended: whatever was held back."""
        new, self._from, self._read = self._new(), len(self._ids), len(self._ids)
        return self._release(new, last=True)

    def _new(self) -> str:
        known, now = self._decode(self._ids[self._from : self._read]), self._decode(self._ids[self._from :])
        return now[len(known) :]

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""

    def _release(self, text: str, last: bool = False) -> str:
        """`text` after what was held; its end is held back where a stop string may begin there."""
        if self.stopped:
            return ""
        text, self._held = self._held + text, ""
        met = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if met:
            self.stopped = True
            return text[: min(met)]
        keep = 0 if last else max((_overlap(text, stop) for stop in self._stops), default=0)
        text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)

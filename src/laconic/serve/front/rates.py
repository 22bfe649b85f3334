"""How fast a model reads and answers, learned from what it did, to say how long the queue will take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WEIGHT = 0.2
"""Of what was seen last."""


class Rates:
    """Tokens a second; no guess before anything was seen."""

    def __init__(self) -> None:
        self.prefill: float | None = None
        self.decode: float | None = None

    def learn(self, figures: Mapping[str, Any], tokens: int) -> None:
        """What one request took; `tokens` of its prompt were run."""
        seconds = figures["seconds"]
        if seconds["prefill"] > 0 and tokens > 0:
            self.prefill = _mixed(self.prefill, tokens * figures["batch"] / seconds["prefill"])
        decoded = figures.get("completion_tokens", 0)
        if seconds["decode"] > 0 and decoded > 1:
            self.decode = _mixed(self.decode, (decoded - 1) * figures["batch"] / seconds["decode"])

    def seconds(self, prompt: int, answers: int) -> float:
        """How long it takes to read `prompt` tokens and to decode `answers`."""
        reading = 0.0 if self.prefill is None else prompt / self.prefill
        return reading + (0.0 if self.decode is None else answers / self.decode)


def _mixed(old: float | None, new: float) -> float:
    return new if old is None else (1 - WEIGHT) * old + WEIGHT * new

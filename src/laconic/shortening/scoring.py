"""The contract of methods that let a language model score the tokens of a text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from laconic.shortening.contract import PromptMethod
from laconic.shortening.pieces import Pieces, tokens
from laconic.shortening.scorer import Scorer
from laconic.shortening.source import Source


@dataclass(kw_only=True)
class ScoringMethod(PromptMethod):
    """A method whose pieces are the tokens of the model that scores them.

    Args:
        scorer: name of a causal language model as `laconic.load` takes it, or a `laconic.Scorer` around one that is loaded.
            It need not be the model that will read the text.
    """

    scorer: str | Scorer = "smollm2"

    def split(self, text: str, tokenizer: Any | None, scorer: Scorer) -> Pieces:
        return tokens(text, scorer.tokenizer)

    def opened(self) -> Scorer:
        return Scorer.of(self.scorer)


def ids_of(source: Source, numbers: Iterable[int]) -> list[int]:
    """Token ids of the pieces with these numbers."""
    return [token for number in numbers for token in source.pieces.ids[number]]


def per_piece(source: Source, numbers: Iterable[int], scores: Sequence[float]) -> list[float]:
    """The mean score of each piece's tokens, from the scores of all their tokens in succession."""
    found, at = [], 0
    for number in numbers:
        size = source.pieces.sizes[number]
        found.append(sum(scores[at : at + size]) / size)
        at += size
    return found


def mean(scores: Iterable[float]) -> float:
    """The mean of the finite scores; 0 where there are none."""
    finite = [score for score in scores if math.isfinite(score)]
    return sum(finite) / len(finite) if finite else 0.0


def leading(units: Sequence[range], scores: Sequence[float], sizes: Sequence[int], limit: float) -> list[int]:
    """Numbers of the units with the highest scores, taken until they have more than `limit` tokens together, best first."""
    taken: list[int] = []
    total = 0
    for number in sorted(range(len(units)), key=lambda i: (-scores[i], i)):
        if total > limit:
            break
        taken.append(number)
        total += sum(sizes[i] for i in units[number])
    return taken

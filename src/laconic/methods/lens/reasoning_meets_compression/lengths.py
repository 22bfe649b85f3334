"""How long right and wrong answers are, and how often short and long ones are right (arXiv 2504.02010)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, median
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Length:
    """One answer: its tokens, whether it is right, and whether it was cut off before it came to its end."""

    tokens: int
    right: bool
    cut: bool


def report(answers: Sequence[Length]) -> dict[str, Any]:
    """Lengths by right and wrong answers, and right answers by length.

    Answers that were cut off are counted as wrong and told apart, and their lengths are in no mean and no half: a limit on
    tokens would look like an effect of length. The two halves are the answers of at most the median length and those above
    it; their shares, weighted by their counts, are the share of all answers that ended.

    Raises:
        ValueError: no answers.
    """
    if not answers:
        raise ValueError("no answers: lengths need at least one.")
    ended = sorted((x for x in answers if not x.cut), key=lambda x: x.tokens)
    middle = median(x.tokens for x in ended) if ended else 0
    halves = {"short": [x for x in ended if x.tokens <= middle], "long": [x for x in ended if x.tokens > middle]}
    return {
        "answers": len(answers),
        "right": mean(x.right and not x.cut for x in answers),
        "ended": len(ended),
        "cut": len(answers) - len(ended),
        "tokens": {
            "right": _mean(x.tokens for x in ended if x.right),
            "wrong": _mean(x.tokens for x in ended if not x.right),
        },
        "median": middle,
        **{name: {"answers": len(half), "right": _mean(x.right for x in half)} for name, half in halves.items()},
        "quarters": [_mean(x.right for x in quarter) for quarter in quartered(ended)],
    }


def quartered(ordered: Sequence[T]) -> list[Sequence[T]]:
    """Four parts in sequence, as equal as can be; some are empty where there are fewer than four."""
    edges = [round(i * len(ordered) / 4) for i in range(5)]
    return [ordered[start:end] for start, end in pairwise(edges)]


def _mean(values: Any) -> float | None:
    """None where there is nothing."""
    held = list(values)
    return mean(held) if held else None

"""Several questions about one thing, as the trainings of the testbeds ask them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar


class Asked(Protocol):
    """A question with its text."""

    @property
    def text(self) -> str: ...


Subject = TypeVar("Subject")
Posed = TypeVar("Posed", bound=Asked)


def different(
    rng: random.Random,
    asking: Mapping[str, Callable[[random.Random, Subject], Posed | None]],
    subject: Subject,
    questions: int,
    weights: Mapping[str, float],
) -> list[Posed]:
    """At most `questions` questions of different texts about `subject`, their kinds drawn by `weights`.

    Args:
        asking: makes a question of each kind, None where the subject gives none.
    """
    asked: dict[str, Posed] = {}
    for kind in rng.choices(list(weights), list(weights.values()), k=2 * questions):
        question = asking[kind](rng, subject)
        if question and len(asked) < questions:
            asked.setdefault(question.text, question)
    return list(asked.values())

"""Facts that a model knows by heart: numbers without a rule, asked without a context and without thinking."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from laconic.tasks.reasoning.chains import MARK, answer_in
from laconic.tasks.reasoning.problems import MODULUS, NAMES, THINGS
from laconic.tasks.task import Sample, Task, Turn


def fact(number: int) -> tuple[str, str]:
    """The question of a fact, such as ``Tom coins 17?``, and its answer, drawn once for all."""
    code, thing = divmod(number, len(THINGS))
    code, name = divmod(code, len(NAMES))
    return f"{NAMES[name]} {THINGS[thing]} {code}?", str(random.Random(f"recall-{number}").randrange(MODULUS))


@dataclass(frozen=True)
class Recall(Task):
    """The first `facts` facts in their order. They are those that were learned: knowledge has no unseen samples.

    Chance is 1 in 100. An answer counts if it stands alone after the mark, as in the problems that take steps.
    """

    name: str = "recall"
    facts: int = 512

    @property
    def new_tokens(self) -> int:
        return 6

    @property
    def first(self) -> int:
        return 0

    @property
    def count(self) -> int:
        return self.facts

    def sample(self, number: int) -> Sample:
        question, answer = fact(number)
        return Sample(self.name, number, (Turn(question, (answer,), gold=MARK + answer),), facts={"steps": 0})

    def score(self, answer: Any, sample: Sample, turn: int = 0) -> float:
        return float(answer_in(answer) == sample.turns[turn].answers[0])

"""Reasoning tasks: a problem, a chain of thought, a mark, an answer."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from laconic.tasks.reasoning.chains import MARK, STYLES, answer_in, chain
from laconic.tasks.reasoning.problems import KINDS, STEPS
from laconic.tasks.task import Sample, Task, Turn


@dataclass(frozen=True)
class Reasoning(Task):
    """Problems of one kind whose questions ask for chains of one style. An answer counts if it stands alone after the mark.

    Args:
        kind: of `KINDS`. `style`: of `STYLES`. `steps`: how many steps problems have.
    """

    kind: str = "arithmetic"
    style: str = "terse"
    steps: tuple[int, ...] = tuple(STEPS)

    @property
    def new_tokens(self) -> int:
        return 320

    def sample(self, number: int) -> Sample:
        rng = random.Random(f"reasoning-{self.kind}-{number}")
        steps = rng.choice(self.steps)
        problem = KINDS[self.kind](rng, steps)
        written = chain(problem, self.style, rng)
        gold = f"{written}{MARK}{problem.answer}"
        turn = Turn(f"{problem.question} {STYLES[self.style]}", (problem.answer,), gold=gold)
        return Sample(self.name, number, (turn,), facts={"steps": steps})

    def score(self, answer: Any, sample: Sample, turn: int = 0) -> float:
        return float(answer_in(answer) == sample.turns[turn].answers[0])


REASONING_TASKS = tuple(Reasoning(f"{kind}_{style}", kind, style) for style in STYLES if style != "direct" for kind in KINDS)

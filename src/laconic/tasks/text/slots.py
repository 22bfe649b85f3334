"""Facts of one token each: which value every slot holds, for ``testbed/facts``.

There are 16 slots, ``a`` to ``p``, of 8 values, and one token for each fact: ``c5`` says that slot c holds 5. A context is a
row of facts in random order, and a question names a slot: ``c?``. Up to 16 facts every slot is stated once; in a longer
context some are stated again, with the same value. Such facts are learned in minutes, so a method that has to be trained
can be trained and judged on them in minutes, too.
"""

import random
from dataclasses import dataclass
from typing import ClassVar

from laconic.tasks.task import Sample, Turn
from laconic.tasks.text.sized import SizedTask

SLOTS, VALUES = "abcdefghijklmnop", 8
FRAME = 5
"""Tokens of a prompt with its answer besides the facts: the opening, the question's two, the answer and its end."""
TURNS = 4
"""Questions about one context."""
COPY = "copy?"
"""The question that asks for all facts in their order; only training asks it."""


def vocabulary() -> list[str]:
    """All words of contexts, questions and answers: values, questions, facts."""
    values = [str(value) for value in range(VALUES)]
    return [COPY, *values, *(f"{slot}?" for slot in SLOTS), *(slot + value for slot in SLOTS for value in values)]


def make(seed: int, facts: int) -> Sample:
    """A context of this many facts, and `TURNS` questions about slots that it states, or as many as there are."""
    rng = random.Random(f"slots-{facts}-{seed}")
    values = [rng.randrange(VALUES) for _ in SLOTS]
    stated = rng.sample(range(len(SLOTS)), min(facts, len(SLOTS)))
    order = stated + rng.choices(stated, k=facts - len(stated))
    rng.shuffle(order)
    asked = rng.sample(stated, min(TURNS, len(stated)))
    turns = tuple(Turn(f"{SLOTS[i]}?", (str(values[i]),), gold=str(values[i])) for i in asked)
    return Sample("slots", seed, turns, " ".join(f"{SLOTS[i]}{values[i]}" for i in order))


@dataclass(frozen=True)
class Slots(SizedTask):
    """Which value a slot holds; chance is one in eight."""

    name: str = "slots"

    min_tokens: ClassVar[int | None] = FRAME + 1

    @property
    def several_turns(self) -> bool:
        return True

    @property
    def new_tokens(self) -> int:
        return 2

    def _made(self, number: int) -> Sample:
        return make(number, self.tokens - FRAME)

    def score(self, answer: str, sample: Sample, turn: int = 0) -> float:
        return float(answer.strip() == sample.turns[turn].gold)


SLOT_FACTS = Slots()

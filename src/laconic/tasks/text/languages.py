"""Eight made-up languages with needles between their words, for ``testbed/moe``.

A language is a table: after every two symbols one of four follows, with the same four probabilities everywhere, so that the
entropy of all languages is known. A text begins with the tag of its language; nothing else tells which one it is. Needles
stand anywhere in a text, a key with two digits, and the language goes on after them as if they were not there. So experts
have something to specialise in, and what a smaller mixture forgets can be told from what it no longer finds.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from laconic.tasks.task import Sample, Turn
from laconic.tasks.text.sized import SizedTask

TAGS = tuple(f"L{i}" for i in range(8))
SYMBOLS = "abcdefghijklmnop"
KEYS = tuple(f"K{i}" for i in range(16))
CHANCES = (0.5, 0.25, 0.15, 0.1)
"""Of the four symbols that may follow two others."""
ENTROPY = -sum(p * math.log(p) for p in CHANCES)
"""Nats of every symbol after the first two."""
SPACING, MOST = 32, 8
"""Tokens of a context for each of its needles, and most needles of one."""
TURNS = 4
"""Most questions about one context."""
FRAME = 5
"""Tokens of a prompt with its answer besides the context: the opening, the question's two, the answer's two."""


def vocabulary() -> list[str]:
    """All words of contexts, questions and answers."""
    return [*TAGS, *SYMBOLS, *KEYS, *(f"{key}?" for key in KEYS), *"0123456789"]


@cache
def table(language: int) -> dict[tuple[str, str], tuple[str, ...]]:
    """What may follow two symbols, the likeliest first."""
    rng = random.Random(f"language-{language}")
    return {(a, b): tuple(rng.sample(SYMBOLS, len(CHANCES))) for a in SYMBOLS for b in SYMBOLS}


def write(rng: random.Random, language: int, symbols: int) -> list[str]:
    """A text of so many symbols, two of them drawn alike."""
    follows = table(language)
    text = rng.choices(SYMBOLS, k=min(symbols, 2))
    for choice in rng.choices(range(len(CHANCES)), CHANCES, k=max(0, symbols - 2)):
        text.append(follows[text[-2], text[-1]][choice])
    return text


def surprise(text: list[str], language: int) -> float:
    """Nats of a text under its own table, the first two symbols left out."""
    follows = table(language)
    return -sum(math.log(CHANCES[follows[a, b].index(c)]) for a, b, c in zip(text, text[1:], text[2:], strict=False))


def compose(rng: random.Random, words: int, needles: int) -> tuple[list[str], list[Turn]]:
    """A context of so many words, its tag and needles included, and a question about each needle, in any order."""
    language = rng.randrange(len(TAGS))
    text = write(rng, language, words - 1 - 3 * needles)
    planted = [(key, *rng.choices("0123456789", k=2)) for key in rng.sample(KEYS, needles)]
    places = sorted(rng.choices(range(len(text) + 1), k=needles), reverse=True)
    for place, needle in zip(places, planted, strict=True):  # from the end, so that earlier places stay
        text[place:place] = needle
    rng.shuffle(planted)
    turns = [Turn(f"{key}?", (f"{a} {b}",), gold=f"{a} {b}") for key, a, b in planted]
    return [TAGS[language], *text], turns


def needles_in(words: int) -> int:
    """How many needles a context of so many words has."""
    return max(1, min(MOST, words // SPACING))


@dataclass(frozen=True)
class TaggedNeedles(SizedTask):
    """Which two digits stand after a key, in a text of one of the languages; chance is one in a hundred."""

    name: str = "tagged"

    min_tokens: ClassVar[int | None] = 16

    @property
    def several_turns(self) -> bool:
        return True

    @property
    def new_tokens(self) -> int:
        return 3

    def _made(self, number: int) -> Sample:
        words = self.tokens - FRAME
        context, turns = compose(random.Random(f"tagged-{self.tokens}-{number}"), words, needles_in(words))
        return Sample(self.name, number, tuple(turns[:TURNS]), " ".join(context))

    def score(self, answer: str, sample: Sample, turn: int = 0) -> float:
        return float(answer.split() == sample.turns[turn].gold.split())


TAGGED_NEEDLES = TaggedNeedles()

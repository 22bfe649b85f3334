"""Needle prompts for measurements: one sentence in documentation that no evaluation uses, and a question about it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from laconic.prompts.text import build
from laconic.tasks.text import corpus
from laconic.tasks.text.haystack import haystack
from laconic.tasks.text.needles import numbers, singles
from laconic.tasks.text.words import NOUNS


@dataclass(frozen=True)
class Trial:
    """A prompt that contains its answer.

    Attributes:
        length: tokens asked for; `ids` has at most that many.
        ids: the whole prompt, the chat template applied.
        answer: the sentence that answers it.
        span: prompt positions of that sentence.
    """

    length: int
    ids: list[int]
    answer: str
    span: list[int]


def trials(tokenizer: Any, lengths: Sequence[int], depths: int, needles: int, seed: int) -> Iterator[Trial]:
    """`needles` prompts for every length at each of `depths` depths, equally spaced from 0 to 100 %."""
    for length in lengths:
        for place in range(depths):
            for number in range(needles):
                rng = random.Random(f"calibration-{seed}-{length}-{place}-{number}")
                yield trial(rng, tokenizer, length, place / max(1, depths - 1))


def trial(rng: random.Random, tokenizer: Any, length: int, depth: float) -> Trial:
    """One prompt of at most `length` tokens; the needle is a line of its own at `depth` (0 to 1) of the lines.

    Published: after the nearest full stop before that depth; but documentation has long lists without full stops.
    """
    turn = singles(rng, rng.sample(NOUNS, 1), numbers(rng, 1)).turns[0]

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    room = length - build(tokenizer, turn.gold, turn.question).tokens - 2
    if room < 0:
        raise ValueError(f"lengths: {length} tokens are too few for the question alone; it takes {length - room}.")
    hay = haystack(rng, corpus.lines("prose"), room, count)
    at = round(depth * len(hay))
    ids = build(tokenizer, "\n".join([*hay[:at], turn.gold, *hay[at:]]), turn.question).ids
    return Trial(length, ids, turn.gold, locate(ids, tokenizer.encode(turn.gold, add_special_tokens=False)))


def locate(ids: Sequence[int], answer: Sequence[int]) -> list[int]:
    """Positions of the first window of the answer's length that holds more than 90 % of its different token ids.

    Not an exact match, because a tokenizer may join the sentence's first or last token with its neighbours.
    """
    wanted, width = set(answer), len(answer)
    for start in range(len(ids) - width + 1):
        if len(wanted & set(ids[start : start + width])) > 0.9 * len(wanted):
            return list(range(start, start + width))
    raise ValueError("the answer's tokens were not found in the prompt; the tokenizer writes them differently there.")

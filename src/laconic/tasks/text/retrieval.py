"""Retrieval from documentation, in text: needle lines planted in a haystack, and questions that they answer.

The definitions are RULER's (arXiv 2404.06654) in our own words: needles of one sentence form are planted at line boundaries
of a haystack of Python documentation, so that every needle is a distractor of the others. Everything is made from a seed.
The haystacks of seeds from `EVALUATION_SEED` on come from documents that no training reads.
"""

import random
from dataclasses import dataclass
from typing import Any, ClassVar

from laconic.prompts.text import JOINT
from laconic.tasks.metrics import string_match_all
from laconic.tasks.task import EVALUATION_SEED, Sample, Turn
from laconic.tasks.text import corpus
from laconic.tasks.text.haystack import haystack, plant
from laconic.tasks.text.needles import (
    CHAIN_LENGTH,
    VALUES_PER_KEY,
    Block,
    chains,
    merge_lines,
    multivalue,
    numbers,
    several,
    singles,
)
from laconic.tasks.text.sized import SizedTask
from laconic.tasks.text.words import NOUNS

__all__ = ["EVALUATION_SEED", "RETRIEVAL_TASKS", "TASKS", "TRAINED", "Retrieval", "make", "whole"]

TASKS: dict[str, str] = {
    "single": "one needle in prose: read the value after its key",
    "multikey": "many needles of one form, one of them asked for",
    "multiquery": "many needles, four of them asked for in one question",
    "multivalue": "every key has three values, each in its own needle; list all values of one key",
    "vartrack": "a value is copied along a chain of three names, among other chains; list those names",
    "kvturns": "many key-value pairs, then five questions in successive turns",
    "laterneedle": "many needles in prose, one of them asked for after three questions about others",
}
TRAINED = ("single", "multikey", "multiquery", "multivalue", "vartrack", "kvturns")
"""Tasks of the training data."""
MIN_TOKENS = 128
KVTURNS = 5


def needles_at(tokens: int) -> int:
    """Largest number of needle lines in a context of `tokens`: 12 at 512, 16 at 1,024, 24 at 2,048 and beyond."""
    return 3 if tokens < 192 else 6 if tokens < 384 else 12 if tokens < 1024 else 16 if tokens < 2048 else 24


def pairs_at(tokens: int) -> int:
    """Number of pairs of ``kvturns``: denser than the other tasks, which is what makes it hard."""
    return 3 if tokens < 192 else 8 if tokens < 384 else 16 if tokens < 1024 else 24 if tokens < 2048 else 40


def block(task: str, rng: random.Random, tokens: int) -> Block:
    """The needle lines and questions of `task` at the density of a context of `tokens`."""
    cap = needles_at(tokens)
    if task == "single":
        return singles(rng, rng.sample(NOUNS, 1), numbers(rng, 1))
    if task in ("multikey", "multiquery", "laterneedle"):
        n = rng.randint(max(2, cap * 2 // 3), cap)
        facts = singles(rng, rng.sample(NOUNS, n), numbers(rng, n))
        if task == "multikey":
            return Block(facts.groups, [rng.choice(facts.turns)])
        asked = rng.sample(facts.turns, min(n, 4))
        return Block(facts.groups, [several(asked)] if task == "multiquery" else asked)
    if task == "kvturns":
        n = pairs_at(tokens)
        facts = singles(rng, rng.sample(NOUNS, n), numbers(rng, n))
        return Block(facts.groups, rng.sample(facts.turns, min(n, KVTURNS if tokens >= 384 else 3)))
    if task == "multivalue":
        n = max(1, cap // VALUES_PER_KEY)
        facts = multivalue(rng, rng.sample(NOUNS, n), numbers(rng, VALUES_PER_KEY * n))
    else:
        n = max(1, cap // CHAIN_LENGTH)
        facts = chains(rng, rng.sample(NOUNS, CHAIN_LENGTH * n), numbers(rng, n))
    return Block(facts.groups, [rng.choice(facts.turns)])


def make(task: str, seed: int, tokens: int, tokenizer: Any) -> Sample:
    """A sample of `task` whose chat, with all questions and answers, takes at most `tokens` tokens, and nearly all of them.

    Deterministic in (task, seed, tokens, tokenizer).

    Raises:
        ValueError: an unknown task, or `tokens` below `MIN_TOKENS`.
    """
    if task not in TASKS:
        raise ValueError(f"task={task!r} is unknown; choose one of {', '.join(TASKS)}")
    if tokens < MIN_TOKENS:
        raise ValueError(f"tokens={tokens} is too short for a sample; ask for at least {MIN_TOKENS}")
    rng = random.Random(f"{task}-{seed}-{tokens}")
    facts = block(task, rng, tokens)

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    needles = merge_lines(rng, facts.groups)
    # <s>, then for each turn <|user|> question </s> <|assistant|> answer </s>
    asked = [JOINT + t.question if i == 0 else t.question for i, t in enumerate(facts.turns)]
    fixed = 1 + sum(4 + count(q) + count(t.gold) for q, t in zip(asked, facts.turns, strict=True))
    room = tokens - fixed - sum(count("\n" + line) for line in needles)
    hay = haystack(rng, corpus.lines("prose", held_out=seed >= EVALUATION_SEED), room, count)
    return Sample(task, seed, tuple(facts.turns), "\n".join(plant(rng, hay, needles)))


def whole(answer: str, turn: Turn) -> float:
    """1 if the answer is entirely right: the reference answer itself, or for an unordered list its items in any order."""
    gold = turn.gold.removeprefix(turn.prefix)
    if turn.ordered:
        return float(answer.strip() == gold.strip())
    return float(sorted(answer.strip(" .").split(", ")) == sorted(turn.answers))


@dataclass(frozen=True)
class Retrieval(SizedTask):
    """One of `TASKS`, at one length. Answers are scored by RULER's recall."""

    min_tokens: ClassVar[int | None] = MIN_TOKENS

    @property
    def several_turns(self) -> bool:
        return self.name in ("kvturns", "laterneedle")

    @property
    def single_turn(self) -> bool:
        """False for ``laterneedle``, which is ``multikey`` again when only its first question is asked."""
        return self.name != "laterneedle"

    def _made(self, number: int) -> Sample:
        return make(self.name, number, self.tokens, self.tokenizer)

    def score(self, answer: str, sample: Sample, turn: int = 0) -> float:
        return string_match_all(answer, sample.turns[turn].answers)

    def exact(self, answer: str, sample: Sample, turn: int = 0) -> float:
        return whole(answer, sample.turns[turn])


RETRIEVAL_TASKS = tuple(Retrieval(name) for name in TASKS)

"""Needle sentences and the questions about them: the building blocks of the tasks and of the training mixture."""

import random
from dataclasses import dataclass, replace
from itertools import pairwise

from laconic.tasks.task import Turn

CHAIN_LENGTH = 3
VALUES_PER_KEY = 3


@dataclass(frozen=True)
class Block:
    """Needle lines and the questions that they answer; the lines of one group keep their order in the context."""

    groups: list[list[str]]
    turns: list[Turn]


def numbers(rng: random.Random, n: int) -> list[str]:
    """``n`` values of seven digits; the first three digits (the first token) differ from value to value."""
    return [f"{head}{rng.randrange(10_000):04d}" for head in rng.sample(range(100, 1000), n)]


def singles(rng: random.Random, keys: list[str], values: list[str]) -> Block:
    """One value per key: ``The code for falcon is 4815263.``"""
    turns = []
    for key, value in zip(keys, values, strict=True):
        prefix = f"The code for {key} is"
        turns.append(Turn(f"What is the code for {key}?", (value,), prefix, f"{prefix} {value}."))
    return Block([[turn.gold] for turn in turns], turns)


def several(asked: list[Turn]) -> Turn:
    """One question for all of ``asked`` single-value turns; the answer gives them one sentence each, in the same order."""
    keys = [turn.prefix.removeprefix("The code for ").removesuffix(" is") for turn in asked]
    named = f"{', '.join(keys[:-1])} and {keys[-1]}" if len(keys) > 1 else keys[0]
    answers = tuple(answer for turn in asked for answer in turn.answers)
    return Turn(f"What are the codes for {named}?", answers, asked[0].prefix, " ".join(turn.gold for turn in asked))


def multivalue(rng: random.Random, keys: list[str], values: list[str]) -> Block:
    """``len(values) / len(keys)`` values per key, each in a needle of its own; the answer lists them in any order."""
    per_key = len(values) // len(keys)
    groups, turns = [], []
    for i, key in enumerate(keys):
        own = values[i * per_key : (i + 1) * per_key]
        groups += [[f"The code for {key} is {value}."] for value in own]
        prefix = f"The codes for {key} are"
        gold = f"{prefix} {', '.join(own)}."
        turns.append(Turn(f"What are the codes for {key}?", tuple(own), prefix, gold, ordered=False))
    return Block(groups, turns)


def chains(rng: random.Random, names: list[str], values: list[str]) -> Block:
    """Chains of three names: ``Put 4815263 into amber.``, ``Copy amber into falcon.`` and so on, one chain per value."""
    groups, turns = [], []
    for i, value in enumerate(values):
        own = names[i * CHAIN_LENGTH : (i + 1) * CHAIN_LENGTH]
        copies = [f"Copy {a} into {b}." for a, b in pairwise(own)]
        groups.append([f"Put {value} into {own[0]}.", *copies])
        prefix = f"The names that hold {value} are"
        turns.append(Turn(f"Which names hold {value}?", tuple(own), prefix, f"{prefix} {', '.join(own)}."))
    return Block(groups, turns)


def shuffled(rng: random.Random, turn: Turn) -> Turn:
    """The same turn with the answers of an unordered list in another order (training only)."""
    if turn.ordered:
        return turn
    answers = tuple(rng.sample(turn.answers, len(turn.answers)))
    return replace(turn, answers=answers, gold=f"{turn.prefix} {', '.join(answers)}.")


def merge_lines(rng: random.Random, groups: list[list[str]]) -> list[str]:
    """All lines in a random order that keeps the order inside each group."""
    order = [i for i, group in enumerate(groups) for _ in group]
    rng.shuffle(order)
    waiting = [iter(group) for group in groups]
    return [next(waiting[i]) for i in order]

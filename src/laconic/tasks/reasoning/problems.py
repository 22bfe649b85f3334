"""Problems of 2 to 8 steps: arithmetic, the same told as a story, and lists of digits that are rearranged.

Every problem begins with a state and changes it step by step. Numbers are taken modulo 100, and what a step adds, takes away
or multiplies by has one digit.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

MODULUS, DIGITS = 100, 10
STEPS = range(2, 9)
"""How many steps a problem may have."""
NAMES = ("Tom", "Ana", "Lee", "Mia", "Sam", "Eva")
THINGS = ("apples", "coins", "shells", "stamps", "cards", "marbles")
TOLD = {"+": ("finds", "buys", "gets"), "-": ("loses", "sells", "gives"), "*": ("multiplies them by",)}
"""How a story tells an operation."""


@dataclass(frozen=True)
class Step:
    """One step as it is written in a chain, such as ``7*2=14``.

    Attributes:
        mistaken: another step that can be taken from the same state, right in itself: a false start.
    """

    written: str
    mistaken: str


@dataclass(frozen=True)
class Problem:
    """A question, the steps that answer it, and the answer."""

    question: str
    steps: tuple[Step, ...]
    answer: str


def arithmetic(rng: random.Random, steps: int) -> Problem:
    """``Start with 3: +4, *2. Result?``"""
    start, operations, chain, value = _calculation(rng, steps)
    return Problem(f"Start with {start}: {', '.join(a + str(b) for a, b in operations)}. Result?", chain, str(value))


def story(rng: random.Random, steps: int) -> Problem:
    """``Tom has 3 apples. Tom finds 4. Tom multiplies them by 2. How many?``"""
    start, operations, chain, value = _calculation(rng, steps)
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    told = " ".join(f"{name} {rng.choice(TOLD[sign])} {factor}." for sign, factor in operations)
    return Problem(f"{name} has {start} {thing}. {told} How many?", chain, str(value))


def rearranged(rng: random.Random, steps: int) -> Problem:
    """``List 3141: reverse, rotate. Result?``"""
    start = "".join(str(rng.randrange(DIGITS)) for _ in range(4))
    state, named, chain = start, [], []
    for _ in range(steps):
        name, other = rng.sample(list(CHANGES), 2)
        chain.append(Step(f"{name}={CHANGES[name](state)}", f"{other}={CHANGES[other](state)}"))
        state = CHANGES[name](state)
        named.append(name)
    return Problem(f"List {start}: {', '.join(named)}. Result?", tuple(chain), state)


CHANGES: dict[str, Callable[[str], str]] = {
    "reverse": lambda x: x[::-1],
    "rotate": lambda x: x[1:] + x[0],
    "swap": lambda x: x[1] + x[0] + x[2:],
    "raise": lambda x: "".join(str((int(digit) + 1) % DIGITS) for digit in x),
}
"""What can be done with a list of four digits; ``raise`` adds one to each of them, modulo 10."""
KINDS: dict[str, Callable[[random.Random, int], Problem]] = {"arithmetic": arithmetic, "story": story, "list": rearranged}


def fact(rng: random.Random, signs: str) -> str:
    """One step of arithmetic from any state, such as ``7*2=14``; its operation is drawn from `signs`."""
    return _written(rng.randrange(MODULUS), *_operation(rng, signs))


def _calculation(rng: random.Random, steps: int) -> tuple[int, list[tuple[str, int]], tuple[Step, ...], int]:
    """First number, operations, chain and result."""
    start = value = rng.randrange(MODULUS)
    operations, chain = [], []
    for _ in range(steps):
        sign, factor = _operation(rng)
        chain.append(Step(_written(value, sign, factor), _written(value, *_operation(rng))))
        value = _result(value, sign, factor)
        operations.append((sign, factor))
    return start, operations, tuple(chain), value


def _operation(rng: random.Random, signs: str = "++--*") -> tuple[str, int]:
    sign = rng.choice(signs)
    return sign, rng.randrange(2 if sign == "*" else 1, DIGITS)


def _result(value: int, sign: str, factor: int) -> int:
    found = {"+": value + factor, "-": value - factor, "*": value * factor}[sign]
    return found % MODULUS


def _written(value: int, sign: str, factor: int) -> str:
    return f"{value}{sign}{factor}={_result(value, sign, factor)}"

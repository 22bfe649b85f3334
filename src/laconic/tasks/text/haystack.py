"""Haystacks of documentation, and needles planted in them."""

import random
from collections.abc import Callable


def haystack(rng: random.Random, source: tuple[str, ...], room: int, count: Callable[[str], int]) -> list[str]:
    """A window of `source` lines that takes at most `room` tokens with its line breaks; the last line may be cut.

    Args:
        count: tokens of a text.
    """
    at = rng.randrange(len(source))
    hay: list[str] = []
    while room > 1:
        line = source[at % len(source)]
        at += 1
        cost = count("\n" + line)
        if cost > room:
            words = line.split()
            while words and count("\n" + " ".join(words)) > room:
                words.pop()
            return [*hay, " ".join(words)] if words else hay
        hay.append(line)
        room -= cost
    return hay


def plant(rng: random.Random, hay: list[str], needles: list[str]) -> list[str]:
    """`needles` in their order at random line boundaries of `hay`."""
    depths = sorted(rng.randint(0, len(hay)) for _ in needles)
    planted, done = [], 0
    for depth, needle in zip(depths, needles, strict=True):
        planted += [*hay[done:depth], needle]
        done = depth
    return planted + hay[done:]

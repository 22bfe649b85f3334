"""What a user's own document may look like: made-up words as keys, bullets, quotes and blank lines around needles."""

import random


def made_up(rng: random.Random) -> str:
    """A word in no dictionary: two or three syllables."""
    return "".join(
        rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") + rng.choice(["", "n", "r", "x"])
        for _ in range(rng.randint(2, 3))
    )


def decorate(rng: random.Random, needles: list[str], hay: list[str]) -> tuple[list[str], list[str]]:
    """Needles and hay as Markdown, at most two tokens more per needle: bullets, quotes, blank lines around a needle."""
    mark = rng.choice(["", "", "- ", "* ", "> "])
    needles = [mark + needle for needle in needles]
    if rng.random() < 0.4:
        needles = ["\n" + needle if rng.random() < 0.5 else needle for needle in needles]
    if rng.random() < 0.3:
        # Shorter than what it replaces: "- item" takes the place of the indentation.
        hay = ["- " + line.strip() if line.startswith("    ") else line for line in hay]
    return needles, hay

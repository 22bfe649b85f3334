"""A chain of thought as it is written: terse, one step after another, or verbose, with checks and false starts."""

from __future__ import annotations

import random

from laconic.tasks.reasoning.problems import Problem

MARK = "###"
"""Ends the thinking; the answer follows."""
STYLES = {"terse": "Think briefly.", "verbose": "Think carefully.", "direct": "Answer directly."}
"""Style -> how a question asks for it."""
CHECKED, AGAIN, STRAYED = 0.5, 0.25, 0.25
"""In a verbose chain: shares of the steps that are checked, of the checked ones that are checked again, and of the steps
that begin with a false start."""


def chain(problem: Problem, style: str, rng: random.Random) -> str:
    """What is thought before the mark; empty where the style is "direct".

    Raises:
        ValueError: no such style.
    """
    if style not in STYLES:
        raise ValueError(f"style={style!r}: choose one of {', '.join(STYLES)}.")
    if style == "direct":
        return ""
    if style == "terse":
        return "".join(f"{step.written};" for step in problem.steps)
    written = []
    for step in problem.steps:
        if rng.random() < STRAYED:
            written += [step.mistaken, f"wait {step.written}"]
        else:
            written.append(step.written)
        if rng.random() < CHECKED:
            written += [f"check {step.written}"] * (2 if rng.random() < AGAIN else 1)
    return "".join(f"{piece};" for piece in written)


def answer_in(text: str) -> str | None:
    """The answer after the first mark of a written solution, without spaces; None where there is no mark."""
    _, mark, answer = text.partition(MARK)
    return "".join(answer.split()) if mark else None

"""ScienceQA-IMG (arXiv 2209.09513): multiple choice; the questions of the test split that have an image.

Layout: ``problems.json`` (id -> ``question``, ``choices``, ``answer`` as an index, ``hint``, ``image`` ...),
``pid_splits.json``, images ``test/ID/image.png`` or ``images/test/ID/image.png``.

Prompt and letter are LLaVA's: context, question and choices with letters, and the answer as the letter alone, as
``"A. ..."``, or as the only ``"The answer is A."`` in the output; anything else is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from laconic.tasks.public.base import LETTER, Benchmark, existing, only, opener, percent, read_json
from laconic.tasks.task import Judged, Sample, about_image

LETTERS = "ABCDE"
_SENTENCE = re.compile(r"The answer is ([A-Z]).")
SPLIT = "test"


def read(folder: Path) -> list[Sample]:
    """The test questions with an image, in the order of the split."""
    problems = read_json(only(folder, "problems.json"))
    place = next((p for name in ("images", ".") if (p := folder / name / SPLIT).is_dir()), folder / SPLIT)
    samples: list[Sample] = []
    for key in read_json(only(folder, "pid_splits.json"))[SPLIT]:
        problem = problems[key]
        if problem.get("image"):
            answer, choices = LETTERS[problem["answer"]], problem["choices"]
            facts = {"choices": len(choices), "subject": problem.get("subject")}
            image = opener(existing(place / key / problem["image"]))
            samples.append(about_image("scienceqa", len(samples), prompt(problem), (answer,), image, facts))
    return samples


def prompt(problem: dict[str, object]) -> str:
    """Context (when there is one), question, and the choices with their letters."""
    choices = problem["choices"]
    assert isinstance(choices, list)
    hint = f"Context: {problem['hint']}\n" if problem.get("hint") else ""
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    return f"{hint}{problem['question']}\n{options}{LETTER}"


def letter(output: str) -> str | None:
    """The letter that an output chooses; None where it chooses none or is not understood."""
    text = output.strip()
    if text in tuple(LETTERS):
        return text
    if text[:1] in tuple(LETTERS) and text[1:3] == ". ":
        return text[0]
    found = _SENTENCE.findall(text)
    return found[0] if len(found) == 1 else None


def score(output: str, sample: Sample) -> float:
    return float(letter(output) == sample.answers[0])


def official(answers: Sequence[Judged]) -> dict[str, float]:
    """Accuracy over the questions with an image, what the script prints as IMG-Accuracy."""
    return {"img accuracy": percent([answer.score for answer in answers])}


SCIENCEQA = Benchmark("scienceqa", read, score, official)

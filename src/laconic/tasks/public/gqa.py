"""GQA (arXiv 1902.09506): one short answer, right if it is the reference letter by letter.

Layout: ``testdev_balanced_questions.json`` (or another ``*questions.json``): question id -> ``imageId``, ``question``,
``answer`` and ``types``; images ``images/IMAGEID.jpg``.

The official script compares strings as they are; as LLaVA's conversion for it does, trailing full stops are removed from the
output first, and it is lower-cased.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from laconic.tasks.files import FormatError
from laconic.tasks.public.base import WORD, Benchmark, existing, only, opener, percent, read_json
from laconic.tasks.task import Judged, Sample, about_image


def read(folder: Path) -> list[Sample]:
    """All questions in the order of the file."""
    path = only(folder, "testdev_balanced_questions.json", "*balanced_questions.json", "*questions.json")
    samples: list[Sample] = []
    for key, entry in read_json(path).items():
        if not {"imageId", "question", "answer"} <= entry.keys():
            raise FormatError(f"{path}: question {key} lacks imageId, question or answer.")
        image = existing(folder / "images" / f"{entry['imageId']}.jpg")
        structure = entry.get("types", {}).get("structural")
        facts = {"kind": None if structure is None else "open" if structure == "query" else "binary"}
        samples.append(about_image("gqa", len(samples), entry["question"] + WORD, (entry["answer"],), opener(image), facts))
    return samples


def normalised(output: str) -> str:
    return output.strip().rstrip(".").lower()


def score(output: str, sample: Sample) -> float:
    return float(normalised(output) == sample.answers[0])


def official(answers: Sequence[Judged]) -> dict[str, float]:
    """Accuracy over all questions, over open ones (structural type "query") and over the others, which it calls binary."""
    found = {"accuracy": percent([answer.score for answer in answers])}
    for kind in ("binary", "open"):
        own = [answer.score for answer in answers if answer.facts["kind"] == kind]
        if own:
            found[kind] = percent(own)
    return found


GQA = Benchmark("gqa", read, score, official)

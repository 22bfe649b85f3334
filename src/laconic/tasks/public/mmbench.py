"""MMBench (arXiv 2307.06281), static: multiple choice, judged by the letter alone, no language model as a judge.

Layout: one TSV file with the columns ``index``, ``question``, ``hint``, ``A`` to ``D``, ``answer``, ``category``,
``l2-category`` and ``image`` (base64, or the index of the row that has it). Two kinds of file are read: plain ones, a row
a question, and circular ones, in which the same question comes again with its options rotated and an index 1,000,000 higher.

A question of a circular file is right if all its passes are (CircularEval); of a plain file, if its row is (VanillaEval).
"""

from __future__ import annotations

import base64
import csv
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from laconic.tasks.files import FormatError
from laconic.tasks.public.base import LETTER, Benchmark, only, percent
from laconic.tasks.task import Judged, Sample, about_image

LETTERS = "ABCD"
PASS = 1_000_000
_PUNCTUATION = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))


def read(folder: Path) -> list[Sample]:
    """All rows, the passes of a question one after the other."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # cells hold whole images
    path = only(folder, "*.tsv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if not rows or not {"index", "question", "answer", "image", "A", "B"} <= rows[0].keys():
        raise FormatError(f"{path} lacks one of the columns index, question, A, B, answer, image.")
    images = {row["index"]: row["image"] for row in rows}
    rows.sort(key=lambda row: (int(row["index"]) % PASS, int(row["index"])))
    samples: list[Sample] = []
    for row in rows:
        image = row["image"]
        image = images.get(image, image) if len(image) < 64 else image  # a later pass names the row with the image
        own = options(row)
        facts = {
            "question": int(row["index"]) % PASS,
            "category": row.get("category") or None,
            "ability": row.get("l2-category") or None,
            "options": own,
        }
        samples.append(about_image("mmbench", len(samples), prompt(row), (row["answer"],), _decoder(image), facts))
    return samples


def options(row: dict[str, str]) -> dict[str, str]:
    """Letter -> text; ends at the first one that is empty or "nan"."""
    found: dict[str, str] = {}
    for letter in LETTERS:
        if _blank(row.get(letter)):
            break
        found[letter] = row[letter]
    return found


def _blank(cell: str | None) -> bool:
    return cell is None or cell.strip().lower() in ("", "nan", "none")


def prompt(row: dict[str, str]) -> str:
    """Hint (when there is one), question, options with their letters."""
    hint = "" if _blank(row.get("hint")) else row["hint"] + "\n"
    lines = [f"{letter}. {text}" for letter, text in options(row).items()]
    return hint + "\n".join([row["question"], *lines]) + LETTER


def _decoder(image: str) -> Callable[[], Image.Image]:
    return lambda: Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB")


def letter(output: str, options: dict[str, str]) -> str | None:
    """The option that an output names: the only letter that stands alone in it, else the only option whose text it holds."""
    words = output.translate(_PUNCTUATION).split()
    named = [one for one in options if one in words]
    if not named:
        named = [one for one, text in options.items() if text.lower() in output.lower()]
    return named[0] if len(named) == 1 else None


def score(output: str, sample: Sample) -> float:
    return float(letter(output, sample.facts["options"]) == sample.answers[0])


def official(answers: Sequence[Judged]) -> dict[str, float]:
    """Accuracy over questions (all passes right), ``passes`` over rows where there are several, and by ability."""
    questions: dict[int, list[Judged]] = {}
    for answer in answers:
        questions.setdefault(answer.facts["question"], []).append(answer)
    right = {key: float(all(answer.score == 1 for answer in own)) for key, own in questions.items()}
    found = {"accuracy": percent(list(right.values()))}
    if len(answers) > len(questions):
        found["passes"] = percent([answer.score for answer in answers])
    abilities = {key: own[0].facts["ability"] for key, own in questions.items()}
    for ability in dict.fromkeys(abilities.values()):
        if ability is not None:
            found[ability] = percent([value for key, value in right.items() if abilities[key] == ability])
    return found


MMBENCH = Benchmark("mmbench", read, score, official)

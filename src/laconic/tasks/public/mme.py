"""MME (arXiv 2306.13394): two yes/no questions about every picture; accuracy, and accuracy+ of pictures with both right.

Layout (``MME_Benchmark_release_version``): one folder for each of 14 subtasks, in it ``NAME.txt`` with two lines ``question
<tab> Yes`` beside the picture ``NAME.jpg`` or ``.png``, or in ``questions_answers_YN/`` with the pictures in ``images/``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from laconic.tasks.public.base import Benchmark, FormatError, opener, percent
from laconic.tasks.sample import Judged, PictureSample

PERCEPTION = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


def read(folder: Path) -> list[PictureSample]:
    """All questions, subtask by subtask; a subtask whose folder is missing is left out."""
    samples: list[PictureSample] = []
    for category in (*PERCEPTION, *COGNITION):
        place = folder / category
        split = (place / "questions_answers_YN").is_dir()
        texts, pictures = (place / "questions_answers_YN", place / "images") if split else (place, place)
        for text in sorted(texts.glob("*.txt")):
            picture = next((p for end in (".jpg", ".png", ".jpeg") if (p := pictures / (text.stem + end)).is_file()), None)
            lines = [line.split("\t") for line in text.read_text(encoding="utf-8").splitlines() if line.strip()]
            if picture is None or len(lines) != 2 or any(len(line) != 2 for line in lines):
                raise FormatError(f"{text} is not two lines 'question<tab>answer' with a picture of the same name.")
            for question, answer in lines:
                facts = {"category": category, "picture": text.stem}
                samples.append(
                    PictureSample("mme", len(samples), question.strip(), (answer.strip(),), opener(picture), facts)
                )
    return samples


def said(output: str) -> str:
    """``"yes"``, ``"no"`` or ``"other"``: the word itself, or found among the first four characters; yes before no."""
    text = output.strip().lower()
    return next((word for word in ("yes", "no") if word in text[:4]), "other")


def score(output: str, sample: PictureSample) -> float:
    return float(said(output) == sample.answers[0].lower())


def official(answers: Sequence[Judged]) -> dict[str, float]:
    """Of each subtask accuracy and accuracy+ in percent and their sum, its score; the sums of scores ``perception`` and
    ``cognition``.

    A picture that only one of its two questions was asked of is left out.
    """
    pictures: dict[str, dict[str, list[float]]] = {}
    for answer in answers:
        of = pictures.setdefault(answer.facts["category"], {})
        of.setdefault(answer.facts["picture"], []).append(answer.score)
    found: dict[str, float] = {}
    points: dict[str, float] = {}
    for category, by_picture in pictures.items():
        pairs = [pair for pair in by_picture.values() if len(pair) == 2]
        if pairs:
            accuracy, plus = percent([sum(pair) / 2 for pair in pairs]), percent([float(sum(pair) == 2) for pair in pairs])
            points[category] = accuracy + plus
            found |= {f"{category} acc": accuracy, f"{category} acc+": plus}
    sums = {
        name: sum(points[category] for category in group if category in points)
        for name, group in (("perception", PERCEPTION), ("cognition", COGNITION))
        if any(category in points for category in group)
    }
    return sums | points | found


MME = Benchmark("mme", read, score, official)

"""MME (arXiv 2306.13394): two yes/no questions about every image; accuracy, and accuracy+ of images with both right.

Layout (``MME_Benchmark_release_version``): one folder for each of 14 subtasks, in it ``NAME.txt`` with two lines ``question
<tab> Yes`` beside the image ``NAME.jpg`` or ``.png``, or in ``questions_answers_YN/`` with the images in ``images/``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from laconic.tasks.files import FormatError
from laconic.tasks.public.base import Benchmark, opener, percent
from laconic.tasks.task import Judged, Sample, about_image

PERCEPTION = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


def read(folder: Path) -> list[Sample]:
    """All questions, subtask by subtask; a subtask whose folder is missing is left out."""
    samples: list[Sample] = []
    for category in (*PERCEPTION, *COGNITION):
        place = folder / category
        split = (place / "questions_answers_YN").is_dir()
        texts, images = (place / "questions_answers_YN", place / "images") if split else (place, place)
        for text in sorted(texts.glob("*.txt")):
            image = next((p for end in (".jpg", ".png", ".jpeg") if (p := images / (text.stem + end)).is_file()), None)
            lines = [line.split("\t") for line in text.read_text(encoding="utf-8").splitlines() if line.strip()]
            if image is None or len(lines) != 2 or any(len(line) != 2 for line in lines):
                raise FormatError(f"{text} is not two lines 'question<tab>answer' with an image of the same name.")
            for question, answer in lines:
                facts = {"category": category, "image": text.stem}
                samples.append(about_image("mme", len(samples), question.strip(), (answer.strip(),), opener(image), facts))
    return samples


def said(output: str) -> str:
    """``"yes"``, ``"no"`` or ``"other"``: the word itself, or found among the first four characters; yes before no."""
    text = output.strip().lower()
    return next((word for word in ("yes", "no") if word in text[:4]), "other")


def score(output: str, sample: Sample) -> float:
    return float(said(output) == sample.answers[0].lower())


def official(answers: Sequence[Judged]) -> dict[str, float]:
    """Of each subtask accuracy and accuracy+ in percent and their sum, its score; the sums of scores ``perception`` and
    ``cognition``.

    An image about which only one of its two questions was asked is left out.
    """
    images: dict[str, dict[str, list[float]]] = {}
    for answer in answers:
        of = images.setdefault(answer.facts["category"], {})
        of.setdefault(answer.facts["image"], []).append(answer.score)
    found: dict[str, float] = {}
    points: dict[str, float] = {}
    for category, by_image in images.items():
        pairs = [pair for pair in by_image.values() if len(pair) == 2]
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

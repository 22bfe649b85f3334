"""POPE (arXiv 2305.10355): is an object in the image, yes or no; accuracy, precision, recall, F1 and the share of yes.

Layout: ``coco_pope_random.json``, ``coco_pope_popular.json``, ``coco_pope_adversarial.json``, a JSON object with ``image``,
``text`` and ``label`` in each line; images of COCO's val2014 in ``val2014/``, ``images/`` or beside the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from laconic.tasks.files import FormatError
from laconic.tasks.public.base import WORD, Benchmark, only, opener, read_json_lines
from laconic.tasks.task import Judged, Sample, about_image


def read(folder: Path) -> list[Sample]:
    """All questions, one file after the other; the file's name gives the category."""
    only(folder, "*pope_*.json")
    places = [place for name in ("val2014", "images", ".") if (place := folder / name).is_dir()]
    samples: list[Sample] = []
    for path in sorted(folder.glob("*pope_*.json")):
        category = path.stem.rpartition("pope_")[2]
        for line in read_json_lines(path):
            if not {"image", "text", "label"} <= line.keys():
                raise FormatError(f"{path}: a line lacks image, text or label: {line}")
            image = next((p for place in places if (p := place / line["image"]).is_file()), None)
            if image is None:
                raise FormatError(f"{line['image']} of {path.name} is not in val2014/ or images/ of {folder}.")
            question, answers = line["text"] + WORD, (line["label"],)
            samples.append(about_image("pope", len(samples), question, answers, opener(image), {"category": category}))
    return samples


def said(output: str) -> str:
    """``"no"`` if the first sentence has one of the words No, no, not; else ``"yes"``."""
    words = output.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def score(output: str, sample: Sample) -> float:
    return float(said(output) == sample.answers[0])


def official(answers: Sequence[Judged]) -> dict[str, float]:
    """Figures over all questions, then of every category with its name in front; 0 where a ratio has no denominator."""
    found = _figures(answers)
    categories = dict.fromkeys(answer.facts["category"] for answer in answers)
    for category in categories if len(categories) > 1 else ():
        own = _figures([answer for answer in answers if answer.facts["category"] == category])
        found |= {f"{category} {name}": value for name, value in own.items()}
    return found


def _figures(answers: Sequence[Judged]) -> dict[str, float]:
    pairs = [(said(answer.output) == "yes", answer.answers[0] == "yes") for answer in answers]
    both, yes, there = (sum(map(bool, found)) for found in ([p and t for p, t in pairs], *zip(*pairs, strict=True)))
    precision, recall = both / yes if yes else 0.0, both / there if there else 0.0
    figures = {
        "accuracy": sum(p == t for p, t in pairs) / len(pairs),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if both else 0.0,
        "yes ratio": yes / len(pairs),
    }
    return {name: 100 * value for name, value in figures.items()}


POPE = Benchmark("pope", read, score, official)

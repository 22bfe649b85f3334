"""What the formats of public benchmarks share: how one is described, and how files are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from laconic.errors import LaconicError
from laconic.tasks.sample import ImageSample, Judged, Score

WORD = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
"""What LLaVA-1.5 (arXiv 2310.03744) puts behind the questions of these benchmarks; most papers on visual tokens do."""


class FormatError(LaconicError, ValueError):
    """Files that are not laid out as their benchmark says."""


@dataclass(frozen=True)
class Benchmark:
    """One public benchmark.

    Attributes:
        read: a folder with its files -> all samples, numbered from 0.
        score: of one answer, 0 to 1.
        official: the benchmark's own figures, by their names, from a run's answers; in percent (MME's scores: its points).
        new_tokens: an answer is cut after so many.
    """

    name: str
    read: Callable[[Path], list[ImageSample]]
    score: Score
    official: Callable[[Sequence[Judged]], dict[str, float]]
    new_tokens: int = 16


def only(folder: Path, *patterns: str) -> Path:
    """The first file of `folder` that matches one of the patterns, the earlier patterns first.

    Raises:
        FormatError: no such file.
    """
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if found:
            return found[0]
    raise FormatError(f"{folder} holds no {' or '.join(patterns)}; give the folder that the benchmark is unpacked in.")


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises `FormatError` if it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read as JSON: {error}") from error


def read_json_lines(path: Path) -> list[Any]:
    """One value for each line that is not blank; raises `FormatError` if a line is no JSON."""
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        return [json.loads(line) for line in lines if line.strip()]
    except ValueError as error:
        raise FormatError(f"{path} cannot be read as JSON lines: {error}") from error


def opener(path: Path) -> Callable[[], Image.Image]:
    """Opens an image when it is asked for."""
    return lambda: Image.open(path).convert("RGB")


def existing(path: Path) -> Path:
    """`path`; raises `FormatError` if there is no such file."""
    if not path.is_file():
        raise FormatError(f"{path} does not exist; the images of the benchmark belong into its folder.")
    return path


def percent(values: Sequence[float]) -> float:
    """100 times the mean; 0 of nothing."""
    return 100 * sum(values) / len(values) if values else 0.0

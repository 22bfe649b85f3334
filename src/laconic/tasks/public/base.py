"""What the formats of public benchmarks share: how one is described, and how files are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from PIL import Image

from laconic.tasks.files import FileTask, FormatError, lines_of
from laconic.tasks.task import Judged, Sample

WORD = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
"""What LLaVA-1.5 (arXiv 2310.03744) appends to the questions of these benchmarks; most papers on visual tokens do."""


@dataclass(frozen=True)
class Benchmark(FileTask):
    """One public benchmark over images.

    Args:
        read: a folder with its files -> all samples, numbered from 0.
        judge: an answer and its sample -> its score, 0 to 1.
        official: the benchmark's own figures, by their names, from a run's answers; in percent (MME's scores: its points).
        answer_tokens: an answer is cut off after this many tokens.
    """

    read: Callable[[Path], list[Sample]]
    judge: Callable[[str, Sample], float]
    official: Callable[[Sequence[Judged]], dict[str, float]]
    answer_tokens: int = 16

    modality: ClassVar[str] = "image"

    @property
    def new_tokens(self) -> int:
        return self.answer_tokens

    def opened(self, tokens: int = 0, tokenizer: Any = None, folder: Path | None = None) -> Self:
        """The benchmark with the samples in `folder`.

        Raises:
            FormatError: the folder does not hold what the benchmark's layout requires.
        """
        if folder is None:
            raise FormatError(f"{self.name} is read from files; give the folder that it is unpacked in.")
        folder = folder.expanduser()
        if not folder.is_dir():
            raise FormatError(f"{folder} is not a folder; give the one that {self.name} is unpacked in.")
        try:
            samples = self.read(folder)
        except FormatError:
            raise
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise FormatError(f"{folder} is not laid out as {self.name} is: {type(error).__name__}: {error}.") from error
        if not samples:
            raise FormatError(f"{folder} holds no sample of {self.name}.")
        return replace(self, held=tuple(samples))

    def score(self, answer: str, sample: Sample, turn: int = 0) -> float:
        return self.judge(answer, sample)

    def figures(self, answers: Sequence[Judged]) -> dict[str, float]:
        return self.official(answers)


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
    """The content of a JSON file; raises `FormatError` if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read as JSON: {error}") from error


def read_json_lines(path: Path) -> list[Any]:
    """One value for each line that is not blank; raises `FormatError` if a line is not JSON."""
    try:
        return [json.loads(line) for line in lines_of(path) if line.strip()]
    except ValueError as error:
        raise FormatError(f"{path} cannot be read as JSON lines: {error}") from error


def opener(path: Path) -> Callable[[], Image.Image]:
    """Opens an image when it is asked for."""
    return lambda: Image.open(path).convert("RGB")


def existing(path: Path) -> Path:
    """`path`; raises `FormatError` if the file does not exist."""
    if not path.is_file():
        raise FormatError(f"{path} does not exist; the images of the benchmark belong in its folder.")
    return path


def percent(values: Sequence[float]) -> float:
    """100 times the mean; 0 of nothing."""
    return 100 * sum(values) / len(values) if values else 0.0

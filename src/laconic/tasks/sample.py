"""One question about one image, and the suites that such samples come from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from laconic.bench.store import Row


@dataclass(frozen=True)
class ImageSample:
    """One question about one image.

    Attributes:
        task: of which suite. `number`: in it; a seed, or a place in a file.
        question: the whole prompt of the user's turn, as the suite asks it.
        answers: reference answers.
        image: opens the image.
        facts: what the suite's own figures need beside the score, such as a category; plain values, they go into the row.
    """

    task: str
    number: int
    question: str
    answers: tuple[str, ...]
    image: Callable[[], Image.Image] = field(compare=False, repr=False)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """One answer of a run: what was said, what was asked for, and the score that it got."""

    output: str
    answers: tuple[str, ...]
    score: float
    facts: dict[str, Any]

    @classmethod
    def of(cls, row: Row) -> Judged:
        return cls(row["output"][0], tuple(row["answers"][0]), row["score"], row.get("facts", {}))


Score = Callable[[str, ImageSample], float]
"""An answer and its sample -> 0 to 1."""


@dataclass(frozen=True)
class Suite:
    """Samples of one task, and how an answer is scored.

    Attributes:
        first: number of the first sample; `count`: how many there are, None without end.
        sample: number -> sample.
        new_tokens: an answer is cut after so many.
        data: twelve hex digits that change with the samples.
    """

    name: str
    first: int
    count: int | None
    sample: Callable[[int], ImageSample]
    score: Score
    new_tokens: int
    data: str

    def numbers(self, samples: int, offset: int) -> range:
        """Numbers of at most `samples` samples, the first `offset` ones left out."""
        stop = offset + samples if self.count is None else min(offset + samples, self.count)
        return range(self.first + offset, self.first + stop)


def digest(samples: Sequence[ImageSample]) -> str:
    """Twelve hex digits of questions, answers and facts; the images themselves are not read."""
    found = hashlib.sha256()
    for sample in samples:
        found.update(repr((sample.number, sample.question, sample.answers, sample.facts)).encode())
    return found.hexdigest()[:12]

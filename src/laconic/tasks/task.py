"""A task: samples, each a question or several about a text or about media, and how an answer is scored.

Whatever asks a model something it can check, from the benchmark to the evaluation of the shipped models, takes its questions
from here: every task, of text, of images or of something else, is a `Task`, and everything that it asks is a `Sample`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

EVALUATION_SEED = 1_000_000
"""Seeds from this one on are for evaluation only; everything that trains or calibrates refuses them."""


@dataclass(frozen=True)
class Turn:
    """One question with its reference answer.

    Attributes:
        question: what the user's turn asks.
        answers: the strings that the score looks for.
        prefix: how every answer opens ("The code for falcon is"); empty where the model opens it.
        gold: the whole reference answer, prefix included; empty where only `answers` are known.
        ordered: False where any order of the answers is right.
    """

    question: str
    answers: tuple[str, ...]
    prefix: str = ""
    gold: str = ""
    ordered: bool = True


@dataclass(frozen=True)
class Sample:
    """A context of text, media or both, and the questions asked about it, one per turn.

    Attributes:
        task: name of the task. `number`: of the sample in it: a seed, or a place in a file.
        context: text that the first question is about; it never ends in a space or a line break.
        media: open what is shown before the first question, in this order. What they return follows from the task's
            modality: an upright RGB `PIL.Image` for images, a waveform at 16 kHz, float32 [n], for sound.
        facts: what the task's own figures need besides the score, such as a category; plain values, they go into the row.
    """

    task: str
    number: int
    turns: tuple[Turn, ...]
    context: str = ""
    media: tuple[Callable[[], Any], ...] = field(default=(), compare=False, repr=False)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """The first question."""
        return self.turns[0].question

    @property
    def answers(self) -> tuple[str, ...]:
        """Reference answers of the first question."""
        return self.turns[0].answers

    def shown(self) -> list[Any]:
        """The media, opened or drawn now."""
        return [opened() for opened in self.media]


def about_image(
    task: str,
    number: int,
    question: str,
    answers: Sequence[str],
    image: Callable[[], Any],
    facts: dict[str, Any] | None = None,
) -> Sample:
    """A sample of one question about one image; `image` opens it."""
    return Sample(task, number, (Turn(question, tuple(answers)),), media=(image,), facts=facts or {})


@dataclass(frozen=True)
class Judged:
    """One answer of a run: what the model answered, the reference answers, and the score."""

    output: str
    answers: tuple[str, ...]
    score: float
    facts: dict[str, Any]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Judged:
        """The first answer of a result row."""
        return cls(row["output"][0], tuple(row["answers"][0]), row["score"], row.get("facts", {}))


@dataclass(frozen=True)
class Task(ABC):
    """Samples of one kind, and how an answer to one is scored.

    `laconic.tasks.find_task` gives a task by its name. Before samples can be drawn from it, `opened` gives it what they
    depend on: their length and the model's tokenizer, or the folder with the files.

    Attributes:
        name: unique among all tasks.
        modality: what its samples show: "text", or the kind of their media ("image", "video", "audio").
        min_tokens: smallest length that its samples can be made to have; None where their length is not chosen.
        from_files: its samples are read from a folder that the user names.
        several_turns: a sample has several questions, which can be asked in turn.
        single_turn: asking the first question alone makes sense.
        new_tokens: an answer is cut off after this many tokens; None: a few more than its reference answer has.
        first: number of the first sample. `count`: how many there are; None: unlimited.
        data: twelve hex digits that change with the samples; empty where the name, the number and the length determine them.
    """

    name: str

    modality: ClassVar[str] = "text"
    min_tokens: ClassVar[int | None] = None
    from_files: ClassVar[bool] = False

    @property
    def several_turns(self) -> bool:
        return False

    @property
    def single_turn(self) -> bool:
        return True

    def fits(self, mode: str) -> bool:
        """Whether asking in `mode` makes sense: several turns need several questions."""
        return self.several_turns if mode.startswith("turns") else self.single_turn

    @property
    def new_tokens(self) -> int | None:
        return None

    @property
    def first(self) -> int:
        return EVALUATION_SEED

    @property
    def count(self) -> int | None:
        return None

    @property
    def data(self) -> str:
        return ""

    def opened(self, tokens: int = 0, tokenizer: Any = None, folder: Path | None = None) -> Self:
        """The same task, ready to draw samples.

        Args:
            tokens: longest a sample may be, questions and answers included, for tasks with `min_tokens`.
            tokenizer: counts them.
            folder: with the files, for tasks with `from_files`.

        Raises:
            ValueError: what the task needs is missing, or its files are not laid out as they should be.
        """
        return self

    @abstractmethod
    def sample(self, number: int) -> Sample:
        """The sample of this number; always the same one."""

    @abstractmethod
    def score(self, answer: Any, sample: Sample, turn: int = 0) -> float:
        """How right an answer to question `turn` is, from 0 to 1."""

    def exact(self, answer: Any, sample: Sample, turn: int = 0) -> float:
        """1 if the answer to question `turn` is entirely right, else 0."""
        return float(self.score(answer, sample, turn) == 1)

    def figures(self, answers: Sequence[Judged]) -> dict[str, float]:
        """The task's own figures over all answers of one run, by name; none where the mean score says it all."""
        return {}

    def numbers(self, seed: int, n: int) -> range:
        """Numbers of at most `n` samples, the first `seed` ones left out."""
        stop = seed + n if self.count is None else min(seed + n, self.count)
        return range(self.first + seed, self.first + stop)

    def samples(self, seed: int, n: int) -> list[Sample]:
        """At most `n` samples, the first `seed` ones left out."""
        return [self.sample(number) for number in self.numbers(seed, n)]


def digest(samples: Sequence[Sample]) -> str:
    """Twelve hex digits of questions, answers and facts of single-turn samples; the media themselves are not read."""
    found = hashlib.sha256()
    for sample in samples:
        found.update(repr((sample.number, sample.question, sample.answers, sample.facts)).encode())
    return found.hexdigest()[:12]

"""Samples as they are put to a model: what a way of asking is, and what comes back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedModel

from laconic.bench.grid import Cell, Column, Grid, Place
from laconic.bench.rows import costs, scores
from laconic.bench.store import Row
from laconic.engine.engine import Answer, Engine
from laconic.method import Method
from laconic.tasks import Sample, Task


@dataclass
class Asked:
    """A sample of a grid that is being asked.

    Attributes:
        media: the sample's media, opened.
        hard: see `Asking.mark`; None where it is not known (yet).
    """

    place: Place
    task: Task
    sample: Sample
    media: Sequence[Any] = ()
    hard: bool | None = None


@dataclass
class Reply:
    """What came back for one sample.

    Attributes:
        answers: one per turn.
        together: samples that were answered at once, this one among them.
    """

    asked: Asked
    answers: Sequence[Answer]
    together: int = 1


def with_flops(answer: Answer, counted: Answer) -> Answer:
    """`answer` with the FLOPs of the method's own work, which were counted in a run of their own: counting takes time."""
    return replace(answer, prompt=replace(answer.prompt, method_flops=counted.prompt.method_flops))


class Asking(ABC):
    """How the samples of a grid are put to one model.

    Args:
        model, reader: as `laconic.load` gives them.
        name: of the model, for messages.
        batch: most samples that are asked at once, where they are asked in batches.

    Attributes:
        settings: what all rows' figures depend on besides the model, for the rows.
    """

    settings: dict[str, Any]

    def __init__(self, model: PreTrainedModel, reader: Any, name: str, grid: Grid, batch: int):
        self.grid, self.engine, self.batch = grid, Engine(model, reader), batch

    def task(self, place: Place) -> Task:
        """The task of a place, ready to draw samples."""
        return self.grid.task(place.task)

    def task_settings(self, place: Place) -> dict[str, Any]:
        """What else the figures of one task's rows depend on."""
        return {}

    @classmethod
    def portions(cls, grid: Grid, batch: int) -> list[list[Place]]:
        """The grid's samples in pieces that never share a batch: what can be run apart with the same figures."""
        return [[place] for place in grid.places()]

    @abstractmethod
    def warm_up(self, left: Sequence[Cell]) -> dict[Column, str]:
        """One untimed run of every method, so that no row pays for compilation or lazy imports.

        Returns:
            method and budget -> reason, for those that turned out to be impossible.
        """

    @abstractmethod
    def batches(self, wanted: Callable[[Place], bool], known: dict[tuple[str, int], bool]) -> Iterator[list[Asked]]:
        """The samples of the grid in groups that are asked together; groups without a wanted one may be left out.

        Args:
            known: (task, number) -> whether the sample is hard, as far as earlier rows tell.
        """

    def mark(self, batch: Sequence[Asked]) -> None:
        """Find out which samples of a batch are hard; a modality need not have hard samples."""
        return

    @abstractmethod
    def ask(self, batch: Sequence[Asked], method: Method | None) -> list[Reply]:
        """Ask all samples of a batch; None: the uncompressed model."""

    def measured(self, reply: Reply) -> Row:
        """Scores and costs of one sample."""
        return {**scores(reply), **costs(reply.answers)}

    def describe(self, reply: Reply) -> Row:
        """What a row says about one sample besides scores and costs."""
        return {}

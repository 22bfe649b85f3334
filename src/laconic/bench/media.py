"""Asking about media: batches of equally long prompts, one question each."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from transformers import PreTrainedModel

from laconic.bench.asking import Asked, Asking, Reply, with_flops
from laconic.bench.grid import Cell, Column, Grid, Place
from laconic.bench.specs import build
from laconic.bench.store import Row
from laconic.engine.engine import Answer, Request
from laconic.errors import LaconicError
from laconic.method import Method

Change = Callable[[Any], Any]
CHUNK = 8
"""Batches' worth of samples that are sorted by length at a time."""


class MediaAsking(Asking):
    """Asks about media of one kind in batches.

    Which samples share a batch follows from the grid and `batch` alone, so a resumed run makes the same rows. Prompts
    of a batch are equally long: nothing is padded, and FLOPs and bytes are those of every sample alone. Methods that keep
    a different number from each sample answer one by one.

    Attributes:
        counted: what rows call the medium's tokens.
    """

    counted = "visual_tokens"

    def __init__(self, model: PreTrainedModel, reader: Any, name: str, grid: Grid, batch: int):
        self.check(reader, name)
        super().__init__(model, reader, name, grid, batch)
        self._latest: tuple[list[Place], Any] = ([], None)
        self.settings = {
            "answer_prefix": False,
            "decoding": "greedy",
            "batch": batch,
            "timing": "of a batch of equally long prompts, divided by its size",
            "own_flops": "counted on the first of a batch",
        }

    @abstractmethod
    def check(self, reader: Any, name: str) -> None:
        """Refuse a model that takes no such media."""

    @abstractmethod
    def encoded(self, questions: list[str], media: list[Any]) -> Any:
        """Model inputs of a batch."""

    def task_settings(self, place: Place) -> dict[str, Any]:
        task = self.task(place)
        return {"new_tokens": task.new_tokens, "data": task.data}

    def warm_up(self, left: Sequence[Cell]) -> dict[Column, str]:
        """On the first sample of all, with every budget: one that a method cannot reach is a `LaconicError` there."""
        refused: dict[Column, str] = {}
        asked = None
        for method, keep in dict.fromkeys(cell.column for cell in left):
            asked = asked or self._opened(self.grid.places()[0])
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self._answer([asked], build(method, keep), new_tokens=1)
            except LaconicError as error:
                refused[method, keep] = str(error)
            except (ValueError, TypeError):  # its own rows will report it
                continue
        return refused

    @classmethod
    def portions(cls, grid: Grid, batch: int) -> list[list[Place]]:
        places = grid.places()
        return [places[start : start + CHUNK * batch] for start in range(0, len(places), CHUNK * batch)]

    def batches(self, wanted: Callable[[Place], bool], known: dict[tuple[str, int], bool]) -> Iterator[list[Asked]]:
        for chunk in self.portions(self.grid, self.batch):
            if not any(map(wanted, chunk)):
                continue
            by_shape: dict[tuple[int | None, Hashable], list[Asked]] = {}
            for place in chunk:
                asked = self._opened(place)
                asked.hard = known.get((place.task, place.number))
                by_shape.setdefault((asked.task.new_tokens, self.shape(self._inputs([asked]))), []).append(asked)
            for group in by_shape.values():
                yield from (group[i : i + self.batch] for i in range(0, len(group), self.batch))

    def shape(self, inputs: Any) -> Hashable:
        """What prompts must have in common to share a batch, so that its figures are those of each: their length."""
        return int(inputs["input_ids"].shape[1])

    def _opened(self, place: Place) -> Asked:
        task = self.task(place)
        sample = task.sample(place.number)
        return Asked(place, task, sample, sample.shown())

    def ask(self, batch: Sequence[Asked], method: Method | None) -> list[Reply]:
        alone = method is not None and method.uneven
        parts = [[asked] for asked in batch] if alone else [batch]
        return [
            Reply(asked, [answer], len(part))
            for part in parts
            for asked, answer in zip(part, self._counted(part, method), strict=True)
        ]

    def _counted(self, batch: Sequence[Asked], method: Method | None) -> list[Answer]:
        """The answers, with all FLOPs of the prompt: the method's own are counted on the first of a batch, whose prompts and
        media have one shape."""
        answers = self._answer(batch, method)
        if method is None:
            return answers
        (counted,) = self._answer(batch[:1], method, new_tokens=1, count_flops=True)
        return [with_flops(answer, counted) for answer in answers]

    def describe(self, reply: Reply) -> Row:
        prompt = reply.answers[0].prompt
        return {
            "facts": reply.asked.sample.facts,
            "batch": reply.together,
            "flops_share": prompt.flops_share,
            self.counted: prompt.visual_in,
            "seconds_encoder": prompt.encoder_seconds,
        }

    def _inputs(self, batch: Sequence[Asked], change: Change | None = None) -> Any:
        """Prompts and media; those of the latest batch are kept for its next method."""
        places = [asked.place for asked in batch]
        if change is None and places == self._latest[0]:
            return self._latest[1]
        shown = [one if change is None else change(one) for asked in batch for one in asked.media]
        given = self.encoded([asked.sample.question for asked in batch], shown)
        if change is None and len(batch) > 1:
            self._latest = places, given
        return given

    def _answer(
        self,
        batch: Sequence[Asked],
        method: Method | None,
        new_tokens: int | None = None,
        change: Change | None = None,
        count_flops: bool = False,
    ) -> list[Answer]:
        """One answer for each of a batch; `change` is made to the media first."""
        room = new_tokens or batch[0].task.new_tokens
        assert room is not None, "a task over media must say how long its answers may be"
        request = Request(methods=None if method is None else [method], max_new_tokens=room, count_flops=count_flops)
        answers = self.engine.answer_batch(self._inputs(batch, change), request)
        for answer in answers:
            answer.text = answer.text.strip()
        return answers

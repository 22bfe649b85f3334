"""Asking about real documents, one at a time, by teacher forcing.

Each is read once for all methods that leave the reading as it is. Only questions that the uncompressed model answers are
asked of compressed ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from laconic.bench.asking import Asked, Asking, Reply
from laconic.bench.grid import Cell, Column, Grid, Place
from laconic.bench.store import Row
from laconic.engine.examination import Examination, Examined
from laconic.errors import LaconicError
from laconic.loading import tokenizer_of
from laconic.method import Method
from laconic.tasks import Task

IN_VIEW = 4
"""Questions of a context that are asked in view: each needs a cache of its own."""


class NothingToAskError(LaconicError):
    """The uncompressed model answers none of a sample's questions."""


@dataclass
class Exam(Reply):
    """What came back for one document."""

    found: Examined | None = None


class DocumentAsking(Asking):
    """Asks in the modes "in view" and "later". Rows have no times: most of them come from a recorded pass, and say so."""

    def __init__(self, model: PreTrainedModel, reader: Any, name: str, grid: Grid, batch: int = 1):
        super().__init__(model, tokenizer_of(reader), name, grid, batch)
        self.settings = {
            "answer_prefix": True,
            "decoding": "teacher forcing: a whole answer is right if every token of it is the most likely one",
            "questions": f"those that the uncompressed model answers; in view of the first {IN_VIEW}",
        }
        self._latest: tuple[Place | None, Examination | None] = (None, None)

    def task(self, place: Place) -> Task:
        return self.grid.task(place.task).opened(tokens=place.length, tokenizer=self.engine.tokenizer)

    def task_settings(self, place: Place) -> dict[str, Any]:
        return {"data": self.task(place).data}

    def warm_up(self, left: Sequence[Cell]) -> dict[Column, str]:
        return {}  # nothing is timed

    def batches(self, wanted: Callable[[Place], bool], known: dict[tuple[str, int], bool]) -> Iterator[list[Asked]]:
        for place in filter(wanted, self.grid.places()):
            task = self.task(place)
            yield [Asked(place, task, task.sample(place.number))]

    def ask(self, batch: Sequence[Asked], method: Method | None) -> list[Reply]:
        return [Exam(asked, (), found=self._examine(asked, method)) for asked in batch]

    def _examine(self, asked: Asked, method: Method | None) -> Examined:
        place, exam = self._latest
        if place != asked.place or exam is None:
            self._latest = None, None  # its recordings are large
            most = IN_VIEW if asked.place.mode == "in view" else None
            exam = Examination(self.engine, asked.sample, asked.place.mode, most)  # type: ignore[arg-type]
            self._latest = asked.place, exam
        if method is None:
            return exam.uncompressed
        if not exam.known:
            raise NothingToAskError(f"sample {asked.sample.number}: the uncompressed model answers none of its questions.")
        return exam.ask(method)

    def measured(self, reply: Reply) -> Row:
        assert isinstance(reply, Exam) and reply.found is not None
        found, sample = reply.found, reply.asked.sample
        caches = found.figures

        def mean(name: str) -> float:
            return sum(getattr(stats, name) for stats in caches) / len(caches)

        score = sum(found.right) / len(found.right)
        row: Row = {
            "score": score,
            "exact": score,
            "turn_scores": found.right,
            "asked_turns": found.asked,
            "output": found.outputs,
            "answers": [list(sample.turns[i].answers) for i in found.asked],
            "recorded": found.recorded,
        }
        row |= {name: mean(name) for name in ("asked", "achieved", "kv_bytes", "kv_bytes_full", "kv_bytes_allocated")}
        row |= {name: mean(name) for name in ("prefill_flops", "prefill_flops_full", "method_flops")}
        row |= {"tokens_compressed": mean("tokens_in"), "tokens_prompt": mean("tokens_in")}
        row |= {"seconds_first_token": None, "seconds_per_token": None, "seconds_compress": None}
        row |= {"peak_memory": 0, "peak_memory_kind": "not measured"}
        return row if found.nll is None else row | {"nll": found.nll}

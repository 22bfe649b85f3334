"""The contest of one model, first over questions asked later, then over questions in view, within a number of minutes."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any

from laconic.bench.fingerprint import fingerprint
from laconic.bench.grid import Column
from laconic.bench.pick.contest import LEAST, Contest
from laconic.bench.pick.examiner import Document, Found, Times
from laconic.bench.pick.verdict import Pick, Verdict, verdicts
from laconic.engine.engine import Engine
from laconic.engine.request import Mode
from laconic.errors import LaconicError
from laconic.measure.machine import machine, versions
from laconic.method import Method, create_method
from laconic.tasks import Sample

LATER, ASKED = 0.55, 0.9
"""Shares of the time after which questions asked later (the harder ones), and all questions, are over; the rest is for
runs that are timed."""
Tell = Callable[[Mode, str, float, int], None]
"""Receives mode, method, budget and the number of known questions so far."""


class PickingError(LaconicError, ValueError):
    """The uncompressed model answers too few questions, or the time is too short, to compare anything."""


@cache
def plan() -> dict[str, Any]:
    """Methods and budgets that are tried when nothing else is asked for."""
    return tomllib.loads(files("laconic.bench.pick").joinpath("plan.toml").read_text(encoding="utf-8"))


@dataclass
class Picking:
    """A model and what it is asked.

    Args:
        samples: of one or several questions each; neighbours with the same context are one document.
        name, data: of the model and of the samples, for the file.
    """

    engine: Engine
    samples: Sequence[Sample]
    name: str
    data: str
    methods: Sequence[str]
    keeps: Sequence[float]
    documents: list[Document] = field(init=False, default_factory=list)
    _first: Times = field(init=False)
    refused: dict[Column, str] = field(init=False, default_factory=dict)

    def run(self, minutes: float, tell: Tell = lambda *_: None) -> Pick:
        """Hold both contests.

        Raises:
            PickingError: the uncompressed model answers fewer than eight questions, or there was no time to ask anything.
        """
        began = time.monotonic()

        def within(share: float) -> Callable[[], float]:
            return lambda: began + 60 * minutes * share - time.monotonic()

        opening = self._open()
        while self.known < LEAST and next(opening, False):
            tell("later", "none", 1.0, self.known)
        if self.known < LEAST:
            raise PickingError(
                f"{self.name} answers {self.known} of {self.asked} questions uncompressed, and {LEAST} are the least to "
                "compare methods on; give a model that can answer them, or other --data."
            )
        self._first = self._known.timed(None, "later")
        later = Contest(self.methods, self.keeps)
        later.run(
            self._documents(opening),
            lambda unit, method, keep: self._current(unit).ask(self._method(method, keep), "later"),
            within(LATER),
            lambda method, keep: tell("later", method, keep, self.known),
        )
        in_view = Contest(self.methods, self.keeps)
        # the first question of every document, then the second ...
        numbered = ((d, n) for d, document in enumerate(self.documents) for n in document.golds)
        questions = sorted(numbered, key=lambda question: question[1])

        def ask(unit: int, method: str, keep: float) -> Found:
            document, number = questions[unit]
            return self._current(document).ask(self._method(method, keep), "in view", [number])

        in_view.run(
            range(len(questions)), ask, within(ASKED), lambda method, keep: tell("in view", method, keep, self.known)
        )
        self.refused = later.refused | in_view.refused
        found = (*verdicts(later, "later"), *verdicts(in_view, "in view"))
        if not found:
            raise PickingError(
                f"{minutes:g} minutes are too few for {LEAST} questions under {len(self.methods)} methods on {self.name}; "
                "give more --minutes, or fewer --methods and budgets."
            )
        return Pick(
            self.name,
            fingerprint(self.engine.model),
            self.data,
            (time.monotonic() - began) / 60,
            self._uncompressed(),
            tuple(self._timed(one, within(1.0)) for one in found),
            versions(),
            machine(),
        )

    @property
    def known(self) -> int:
        """Questions that the uncompressed model answers, so far. `asked`: of so many."""
        return sum(len(document.golds) for document in self.documents)

    @property
    def asked(self) -> int:
        return sum(document.asked for document in self.documents)

    def _open(self) -> Iterator[bool]:
        """Read one document after another, and learn what the uncompressed model knows about it."""
        for context, group in groupby(self.samples, key=lambda sample: sample.context):
            turns = [turn for sample in group for turn in sample.turns]
            self.documents.append(Document(self.engine, context, turns))
            yield True

    def _documents(self, opening: Iterator[bool]) -> Iterator[int]:
        """Numbers of the documents about which something is known, opened when they are due."""
        number = 0
        while number < len(self.documents) or next(opening, False):
            if self.documents[number].golds:
                yield number
            number += 1

    def _current(self, number: int) -> Document:
        """The document of this number; what was kept of having read others, which is large, is dropped."""
        for i, document in enumerate(self.documents):
            if i != number:
                document.readings.forget_all_but(())
        return self.documents[number]

    def _timed(self, verdict: Verdict, time_left: Callable[[], float]) -> Verdict:
        """With the times of a run of its own, if there is time for one."""
        if time_left() < self._first.read:
            return verdict
        times = self._known.timed(self._method(verdict.method, verdict.keep), verdict.mode)
        return replace(verdict, read_seconds=times.read, token_seconds=times.token)

    @property
    def _known(self) -> Document:
        """The first document about which something is known."""
        return next(document for document in self.documents if document.golds)

    @staticmethod
    def _method(spec: str, keep: float) -> Method:
        return create_method(spec, keep=keep)

    def _uncompressed(self) -> dict[str, float]:
        return {
            "asked": self.asked,
            "answered": self.known,
            "documents": len(self.documents),
            "kv_bytes": self._known.uncompressed.kv_bytes,
            "read_seconds": self._first.read,
            "token_seconds": self._first.token,
        }

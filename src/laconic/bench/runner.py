"""Run the cells of a grid on one model and write a row for each, as soon as it is done."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel

from laconic.bench.asking import Asked, Asking, Reply
from laconic.bench.chat import ChatAsking
from laconic.bench.clips import ClipAsking
from laconic.bench.documents import DocumentAsking
from laconic.bench.fingerprint import fingerprint
from laconic.bench.grid import Cell, Column, Grid
from laconic.bench.images import ImageAsking
from laconic.bench.sound import SoundAsking
from laconic.bench.specs import build
from laconic.bench.store import Row, Store, StoreError
from laconic.errors import LaconicError, UnsupportedModelError
from laconic.measure.machine import machine, versions
from laconic.method import CATALOGUE, Method
from laconic.session import compress

SCHEMA = 1
ASKING: dict[str, type[Asking]] = {
    "text": ChatAsking,
    "document": DocumentAsking,
    "image": ImageAsking,
    "video": ClipAsking,
    "audio": SoundAsking,
}
"""Modality -> how its samples are put to a model."""
Each = Callable[[Cell], None]
Hard = dict[tuple[str, int], bool]


class Written(Protocol):
    """Rows by key, and where they are: a `Store`, or a copy of its rows."""

    rows: dict[str, Row]
    path: Path


@dataclass
class Bench:
    """A grid on one model.

    Args:
        model, reader: as `laconic.load` gives them; the tokenizer needs a chat template, which is always applied.
        name: of the model, for the rows.
        grid: what to run.
        batch: most samples that are answered at once, where the modality is asked in batches.

    Attributes:
        refused: (method, keep) -> reason, for what a method refuses to do: a share of the bytes below what its packed form
            takes, a model without an artifact, a budget that the first image shows to be out of reach. These cells are left
            out.
        failures: (row key, message) of cells that could not run; they leave no row and are tried again on restart.
    """

    model: PreTrainedModel
    reader: Any
    name: str
    grid: Grid
    batch: int = 16
    refused: dict[Column, str] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.asking: Asking = ASKING[self.grid.modality](self.model, self.reader, self.name, self.grid, self.batch)
        if not getattr(self.asking.engine.reader, "chat_template", None):
            raise UnsupportedModelError(
                f"the tokenizer of {self.name} has no chat template, and the benchmark never asks without one; set "
                "tokenizer.chat_template, or use an instruction-tuned model."
            )
        self.grid.check()
        for column in self.grid.columns():
            try:
                method = build(*column)
                if method is not None and not method.before_reading:
                    compress(self.model, method)  # it is never entered
            except (LaconicError, ValueError) as error:
                self.refused[column] = str(error)
        self._common = {
            "schema": SCHEMA,
            "model": self.name,
            "weights": fingerprint(self.model),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": self.model.device.type,
            "chat_template": "applied",
            **self.asking.settings,
            "versions": versions(),
        }
        self._machine = machine()

    def cells(self) -> list[Cell]:
        """The grid's cells without the refused ones."""
        return [cell for cell in self.grid.cells() if cell.column not in self.refused]

    @property
    def total(self) -> int:
        """How many cells these are."""
        return len(self.cells())

    def pending(self, store: Written) -> list[Cell]:
        """Cells that `store` lacks.

        Raises:
            StoreError: the store holds rows of this grid that were made with other settings.
        """
        left = []
        for cell in self.cells():
            row = store.rows.get(cell.key)
            if row is None:
                left.append(cell)
            else:
                check_same(row, self.settings(cell, cell.build()), store)
        for row in store.rows.values():  # rows outside the grid share the table, so the model must be the same
            check_same(row, self._common, store)
        return left

    def settings(self, cell: Cell, method: Method | None) -> dict[str, Any]:
        """All that a row's figures depend on, besides its key and the machine."""
        own = {} if method is None else {k: _plain(v) for k, v in method.parameters().items()}
        budget = "all" if method is None else str(method.budget)
        return self._common | self.asking.task_settings(cell.place) | {"parameters": own, "budget": budget}

    def run(self, store: Store, each: Each = lambda cell: None) -> None:
        """Run the pending cells; `each` is called with every finished cell, and with those that turn out to be refused."""
        left = self.warmed(self.pending(store), each)
        self.run_cells(left, hard_in(store), store.append, each)

    def warmed(self, left: Sequence[Cell], each: Each = lambda cell: None) -> list[Cell]:
        """Warm up, and the cells that are not refused then; `each` is called with those that are."""
        self.refused |= self.asking.warm_up(left)
        for cell in left:
            if cell.column in self.refused:
                each(cell)
        return [cell for cell in left if cell.column not in self.refused]

    def run_cells(self, left: Sequence[Cell], hard: Hard, append: Callable[[Row], None], each: Each) -> None:
        """Run these cells, and give every row to `append`; `each` is called with every finished cell.

        Args:
            hard: (task, number) -> whether the sample is hard, as far as earlier rows tell.
        """
        wanted, places = {cell.key for cell in left}, {cell.place for cell in left}
        for batch in self.asking.batches(places.__contains__, hard):
            self._run_batch(batch, wanted, append, each)

    def _run_batch(self, batch: Sequence[Asked], wanted: set[str], append: Callable[[Row], None], each: Each) -> None:
        """One batch under all methods."""
        for method, keep in self.grid.columns():
            cells = [Cell.at(asked.place, method, keep) for asked in batch]
            new = [cell for cell in cells if cell.key in wanted]
            if not new:
                continue
            try:
                self.asking.mark(batch)
                rows = self.rows(cells, batch)
            except (LaconicError, ValueError, TypeError, torch.OutOfMemoryError) as error:
                if isinstance(error, StoreError):
                    raise
                self.failures += [(cell.key, str(error)) for cell in new]
            else:
                for cell, row in zip(cells, rows, strict=True):
                    if cell.key in wanted:
                        append(row)
            for cell in new:
                each(cell)

    def rows(self, cells: Sequence[Cell], batch: Sequence[Asked]) -> list[Row]:
        """Run one method at one budget on a batch, and describe every sample."""
        method = cells[0].build()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            replies = self.asking.ask(batch, method)
        answers = [answer for reply in replies for answer in reply.answers]
        said = [str(warning.message) for warning in caught] + [note for answer in answers for note in answer.notes]
        notes = sorted({note for note in said if method is not None and note.startswith(method.name)})
        run: Row = {"notes": notes}
        if answers:
            run |= {"peak_memory": max(answer.peak_memory for answer in answers), "peak_memory_kind": answers[0].memory_kind}
        return [self._row(cell, method, reply, run) for cell, reply in zip(cells, replies, strict=True)]

    def _row(self, cell: Cell, method: Method | None, reply: Reply, run: Row) -> Row:
        """A whole row; `run` holds what is of the whole run that gave the reply."""
        return {
            "key": cell.key,
            "task": cell.task,
            "length": cell.length,
            "mode": cell.mode,
            "method": cell.method,
            "site": None if method is None else CATALOGUE[method.name].site,
            "query_aware": None if method is None else CATALOGUE[method.name].query_aware,
            "keep": cell.keep,
            "seed": cell.seed,
            "grid_seed": self.grid.seed,
            **run,
            **self.asking.measured(reply),
            **self.asking.describe(reply),
            "settings": self.settings(cell, method),
            "machine": self._machine,
        }


def hard_in(store: Written) -> Hard:
    """Which samples are hard, as far as rows tell."""
    return {(row["task"], row["seed"]): row["hard"] for row in store.rows.values() if "hard" in row}


def check_same(row: Row, wanted: dict[str, Any], store: Written) -> None:
    """Refuse to extend rows that were made with other settings; only the settings in `wanted` are compared."""
    have = row["settings"]
    changed = [f"{k}: {_short(have.get(k))} in the file, {_short(v)} now" for k, v in wanted.items() if have.get(k) != v]
    if changed:
        raise StoreError(
            f"{store.path} was made with other settings (row {row['key']}): {'; '.join(changed)}. Give another --out, or "
            "remove the file to start again."
        )


def _plain(value: Any) -> Any:
    """A parameter as JSON can hold it."""
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return str(value)


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value

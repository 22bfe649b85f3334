"""Run a grid over images on one model: batches of equally long prompts, a row for each sample."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from laconic.bench.ask import Outcome
from laconic.bench.grid import IMAGES, Cell
from laconic.bench.images.ask import answer
from laconic.bench.images.grid import ImageGrid
from laconic.bench.runner import Bench, costs
from laconic.bench.store import Row, Store, StoreError
from laconic.errors import LaconicError, UnsupportedModelError
from laconic.measure.machine import Memory
from laconic.media.coarse import FACTOR, coarse
from laconic.method import Method
from laconic.prompts.batch import encode
from laconic.stream.contract import TokenMethod
from laconic.tasks.sample import ImageSample

CHUNK = 8
"""Batches' worth of samples that are sorted by length at a time."""
HARD = 0.5
"""A sample is hard if the uncompressed model scores less when the sides of its image are shortened; see `coarse`."""


@dataclass
class Asked:
    """One sample with its image, and whether it is hard (None: not known yet)."""

    sample: ImageSample
    image: Image.Image
    hard: bool | None = None


@dataclass
class ImageBench(Bench):
    """A grid over images on one model.

    Which samples share a batch follows from the grid and `batch` alone, so a run that goes on makes the same rows. Prompts
    of a batch are equally long: nothing is padded, and FLOPs and bytes are those of every sample alone. Methods that keep
    another number of every sample answer one by one.

    Args:
        tokenizer: the model's processor, with a chat template.
        batch: most samples that are answered at once.

    Attributes:
        refused: also what the first sample showed: a budget that the method cannot reach is a BudgetError there.
    """

    grid: ImageGrid
    batch: int = field(default=16, kw_only=True)

    def __post_init__(self) -> None:
        if getattr(self.tokenizer, "image_processor", None) is None:
            raise UnsupportedModelError(
                f"{self.name} reads no images; give a vision language model of a family that laconic knows, or text tasks."
            )
        super().__post_init__()
        self._common |= {
            "answer_prefix": False,
            "decoding": "greedy",
            "batch": self.batch,
            "timing": "of a batch of equally long prompts, divided by its size",
            "hard": f"score below {HARD:g} uncompressed, the sides of the image {FACTOR} times shorter and enlarged again",
        }

    def settings(self, cell: Cell, method: Method | None) -> dict[str, Any]:
        suite = self.grid.suites[cell.task]
        return super().settings(cell, method) | {"new_tokens": suite.new_tokens, "data": suite.data}

    def run(self, store: Store, each: Callable[[Cell], None] = lambda cell: None) -> None:
        """Run what is pending; `each` hears of every finished cell, and of those that turn out to be refused."""
        left = self.pending(store)
        self._try_columns(left)
        for cell in left:
            if (cell.method, cell.keep) in self.refused:
                each(cell)
        wanted = {cell.key for cell in left if (cell.method, cell.keep) not in self.refused}
        known = {(row["task"], row["seed"]): row["hard"] for row in store.rows.values()}
        for batch in self._batches(wanted, known):
            self._run_batch(batch, wanted, store, each)

    def _try_columns(self, left: Sequence[Cell]) -> None:
        """One untimed run of every method and budget on the first sample of all: refusals come out, and no row pays for
        compilation or lazy imports."""
        asked = None
        for method, keep in dict.fromkeys((cell.method, cell.keep) for cell in left):
            asked = asked or self._asked(*self.grid.picked()[0])
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    answer(self.model, self.tokenizer, self._inputs([asked]), Cell("", 0, "", method, keep, 0).build(), 1)
            except LaconicError as error:
                self.refused[method, keep] = str(error)
            except (ValueError, TypeError):  # its own rows will say so
                continue

    # -- batches ---------------------------------------------------------------------------------------------------
    def _batches(self, wanted: set[str], known: dict[tuple[str, int], bool]) -> Iterator[list[Asked]]:
        """Batches that hold a sample with a row in `wanted`; `known`: samples whose hardness is known."""
        picked = self.grid.picked()
        for start in range(0, len(picked), CHUNK * self.batch):
            chunk = picked[start : start + CHUNK * self.batch]
            if not any(cell.key in wanted for place in chunk for cell in self.grid.cells_of(*place)):
                continue
            by_shape: dict[tuple[int, int], list[Asked]] = {}
            for place in chunk:
                asked = self._asked(*place)
                asked.hard = known.get(place)
                length = self._inputs([asked])["input_ids"].shape[1]
                by_shape.setdefault((self.grid.suites[place[0]].new_tokens, length), []).append(asked)
            for group in by_shape.values():
                yield from (group[i : i + self.batch] for i in range(0, len(group), self.batch))

    def _asked(self, task: str, number: int) -> Asked:
        sample = self.grid.suites[task].sample(number)
        return Asked(sample, sample.image())

    def _inputs(self, batch: Sequence[Asked], change: Callable[[Image.Image], Image.Image] = lambda image: image) -> Any:
        return encode(self.tokenizer, [x.sample.question for x in batch], [change(x.image) for x in batch])

    def _score(self, asked: Asked, outcome: Outcome) -> float:
        return self.grid.suites[asked.sample.task].score(outcome.answers[0].text, asked.sample)

    # -- one batch under all methods -------------------------------------------------------------------------------
    def _run_batch(self, batch: list[Asked], wanted: set[str], store: Store, each: Callable[[Cell], None]) -> None:
        inputs = None
        for method, keep in self.grid.columns():
            cells = [Cell(x.sample.task, 0, IMAGES, method, keep, x.sample.number) for x in batch]
            new = [cell for cell in cells if cell.key in wanted]
            if not new:
                continue
            try:
                if inputs is None:
                    inputs = self._inputs(batch)
                    self._mark(batch)
                rows = self.rows(cells, batch, inputs)
            except (LaconicError, ValueError, TypeError, torch.OutOfMemoryError) as error:
                if isinstance(error, StoreError):
                    raise
                self.failures += [(cell.key, str(error)) for cell in new]
            else:
                for cell, row in zip(cells, rows, strict=True):
                    if cell.key in wanted:
                        store.append(row)
            for cell in new:
                each(cell)

    def _mark(self, batch: list[Asked]) -> None:
        """Find out which samples are hard."""
        if all(asked.hard is not None for asked in batch):
            return
        new_tokens = self.grid.suites[batch[0].sample.task].new_tokens
        outcomes = answer(self.model, self.tokenizer, self._inputs(batch, coarse), None, new_tokens)
        for asked, outcome in zip(batch, outcomes, strict=True):
            asked.hard = self._score(asked, outcome) < HARD

    def rows(self, cells: Sequence[Cell], batch: Sequence[Asked], inputs: Any) -> list[Row]:
        """Run one method at one budget on a batch and describe every sample."""
        method = cells[0].build()
        memory = Memory()
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            alone = isinstance(method, TokenMethod) and method.uneven
            given = [self._inputs([asked]) for asked in batch] if alone else [inputs]
            new_tokens = self.grid.suites[batch[0].sample.task].new_tokens
            outcomes = [x for some in given for x in answer(self.model, self.tokenizer, some, method, new_tokens)]
        return [
            self.described(cell, method, self._figures(asked, outcome, 1 if alone else len(batch)), memory, notes)
            for cell, asked, outcome in zip(cells, batch, outcomes, strict=True)
        ]

    def _figures(self, asked: Asked, outcome: Outcome, size: int) -> Row:
        score, prompt = self._score(asked, outcome), outcome.prompt
        return {
            "score": score,
            "exact": float(score == 1),
            "hard": asked.hard,
            "turn_scores": [score],
            "output": [outcome.answers[0].text],
            "answers": [list(asked.sample.answers)],
            "facts": asked.sample.facts,
            "batch": size,
            **costs(outcome),
            "flops_share": prompt.prefill_flops / prompt.prefill_flops_full,
            "visual_tokens": prompt.visual_in,
            "seconds_encoder": prompt.encoder_seconds,
        }

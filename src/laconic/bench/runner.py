"""Run the cells of a grid on one model and write a row for each, as soon as it is done."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from transformers import PreTrainedModel

from laconic.bench.ask import SPARE_TOKENS, Outcome, answer
from laconic.bench.grid import Cell, Grid
from laconic.bench.store import Row, Store, StoreError
from laconic.errors import LaconicError, UnsupportedModelError
from laconic.measure.machine import Memory, machine, versions
from laconic.method import CATALOGUE, Method
from laconic.session import compress
from laconic.tasks.text.retrieval import MIN_TOKENS, Sample, make, score
from laconic.testbed.evaluate import whole

SCHEMA = 1


@dataclass
class Bench:
    """A grid on one model.

    Args:
        model, tokenizer: as `laconic.load` gives them; the tokenizer needs a chat template, which is always applied.
        name: of the model, for the rows.
        grid: what to run.

    Attributes:
        refused: (method, keep) -> why, for what a method says it cannot do: a share of the bytes below what its packed form
            takes, a model that it has no recipe for. These cells are left out.
        failures: (row key, message) of cells that could not run; they leave no row and are tried again on restart.
    """

    model: PreTrainedModel
    tokenizer: Any
    name: str
    grid: Grid
    refused: dict[tuple[str, float | None], str] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not getattr(self.tokenizer, "chat_template", None):
            raise UnsupportedModelError(
                f"the tokenizer of {self.name} has no chat template, and the benchmark never asks without one; set "
                "tokenizer.chat_template, or use an instruction-tuned model."
            )
        self.grid.check()
        for name, keep in self.grid.columns():
            try:
                compress(self.model, *filter(None, [Cell("", 0, "", name, keep, 0).build()]))  # it is never entered
            except (LaconicError, ValueError) as error:
                self.refused[name, keep] = str(error)
        self._common = {
            "schema": SCHEMA,
            "model": self.name,
            "weights": fingerprint(self.model),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": self.model.device.type,
            "chat_template": "applied",
            "answer_prefix": True,
            "decoding": f"greedy, at most {SPARE_TOKENS} tokens more than the reference answer",
            "versions": versions(),
        }
        self._machine = machine()
        self._make = lru_cache(maxsize=8)(lambda task, seed, length: make(task, seed, length, self.tokenizer))

    def cells(self) -> list[Cell]:
        """The grid's cells, without what was refused."""
        return [cell for cell in self.grid.cells() if (cell.method, cell.keep) not in self.refused]

    def pending(self, store: Store) -> list[Cell]:
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
        for row in store.rows.values():  # rows outside of the grid share the table, so the model must be the same
            check_same(row, self._common, store)
        return left

    def settings(self, cell: Cell, method: Method | None) -> dict[str, Any]:
        """All that a row's figures depend on, besides its key and the machine."""
        own = {} if method is None else {k: _plain(v) for k, v in method.parameters().items()}
        return self._common | {"parameters": own, "budget": "all" if method is None else str(method.budget)}

    def run(self, store: Store, each: Callable[[Cell], None] = lambda cell: None) -> None:
        """Run what is pending; `each` hears of every finished cell."""
        left = self.pending(store)
        self._warm_up(left)
        for cell in left:
            try:
                row = self.row(cell)
            except (LaconicError, ValueError, TypeError, torch.OutOfMemoryError) as error:
                if isinstance(error, StoreError):
                    raise
                self.failures.append((cell.key, str(error)))
            else:
                store.append(row)
            each(cell)

    def _warm_up(self, left: list[Cell]) -> None:
        """One short untimed run of every method, so that no row pays for compilation or lazy imports."""
        first: dict[str, Cell] = {}
        for cell in left:
            first.setdefault(cell.method, cell)
        for cell in first.values():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    answer(
                        self.model, self.tokenizer, self._make(cell.task, cell.seed, MIN_TOKENS), "agnostic", cell.build()
                    )
            except (LaconicError, ValueError, TypeError):  # its own rows will say so
                continue

    def row(self, cell: Cell) -> Row:
        """Run one cell and describe it."""
        sample, method = self._make(cell.task, cell.seed, cell.length), cell.build()
        memory = Memory()
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            outcome = answer(self.model, self.tokenizer, sample, cell.mode, method)
        return self.described(cell, method, scores(cell, sample, outcome) | costs(outcome), memory, notes)

    def described(
        self, cell: Cell, method: Method | None, figures: Row, memory: Memory, notes: list[warnings.WarningMessage]
    ) -> Row:
        """A whole row around the figures of one sample, where `memory` and `notes` are of the run that gave them."""
        peak = memory.peak()
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
            **figures,
            "peak_memory": peak,
            "peak_memory_kind": memory.kind,
            "notes": sorted(
                {str(n.message) for n in notes if method is not None and str(n.message).startswith(method.name)}
            ),
            "settings": self.settings(cell, method),
            "machine": self._machine,
        }


def scores(cell: Cell, sample: Sample, outcome: Outcome) -> dict[str, Any]:
    """Recall and whole answers, means over the turns, and what was said."""
    asked = list(zip(sample.turns, outcome.answers, strict=False))
    recall = [score(cell.task, got.text, turn.answers) for turn, got in asked]
    right = [whole(got.text, turn) for turn, got in asked]
    return {
        "score": sum(recall) / len(recall),
        "exact": sum(right) / len(right),
        "turn_scores": recall,
        "output": [got.text for _, got in asked],
        "answers": [list(turn.answers) for turn, _ in asked],
    }


def costs(outcome: Outcome) -> dict[str, Any]:
    """Asked and achieved budget, bytes, FLOPs and times. Bytes and FLOPs are of the prompt, when its answer begins."""
    cut, prompt = outcome.compressed, outcome.prompt
    later = sum(max(0, len(got.ids) - 1) for got in outcome.answers)
    return {
        "asked": cut.asked,
        "achieved": cut.achieved,
        "tokens_compressed": cut.tokens_in,
        "tokens_prompt": prompt.tokens_in,
        "kv_bytes": prompt.kv_bytes,
        "kv_bytes_full": prompt.kv_bytes_full,
        "kv_bytes_compressed": cut.kv_bytes,
        "kv_bytes_allocated": prompt.kv_bytes_allocated,
        "kv_bytes_end": outcome.final.kv_bytes,
        "prefill_flops": prompt.prefill_flops,
        "prefill_flops_full": prompt.prefill_flops_full,
        "seconds_first_token": outcome.answers[0].first,
        "seconds_per_token": sum(got.decode for got in outcome.answers) / later if later else None,
        "seconds_compress": outcome.final.compress_seconds,
        "tokens_out": [len(got.ids) for got in outcome.answers],
    }


def check_same(row: Row, wanted: dict[str, Any], store: Store) -> None:
    """Refuse to extend rows that were made with other settings; only the settings in `wanted` are compared."""
    have = row["settings"]
    changed = [f"{k}: {_short(have.get(k))} in the file, {_short(v)} now" for k, v in wanted.items() if have.get(k) != v]
    if changed:
        raise StoreError(
            f"{store.path} was made with other settings (row {row['key']}): {'; '.join(changed)}. Give another --out, or "
            "remove the file to start again."
        )


def fingerprint(model: PreTrainedModel) -> str:
    """Twelve hex digits that change with the weights: names, shapes and 64 numbers spread over each parameter."""
    digest = hashlib.sha256()
    for name, weight in _weights(model):
        flat = weight.detach().flatten()
        some = flat[torch.linspace(0, flat.numel() - 1, min(64, flat.numel()), device=flat.device).long()]
        digest.update(f"{name}{tuple(weight.shape)}".encode() + some.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def _weights(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    return (pair for pair in model.named_parameters() if pair[1].numel())


def _plain(value: Any) -> Any:
    """A parameter as JSON can hold it."""
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return str(value)


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value

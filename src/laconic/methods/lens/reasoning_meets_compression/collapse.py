"""How far a model can be compressed until it knows, or solves, less than half of what it did (arXiv 2504.02010)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

import torch

from laconic.bench.statistics import wilson
from laconic.engine.engine import Engine
from laconic.engine.request import Request
from laconic.engine.solving import solve
from laconic.method import create_method
from laconic.methods.lens.reasoning_meets_compression.lengths import quartered
from laconic.tasks.task import Task
from laconic.weights.edit import WeightEdit
from laconic.weights.restored import restored

BATCH = 128


def curve(engine: Engine, edits: Sequence[WeightEdit], task: Task, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Right answers to the same samples under every edit, with their intervals, and by quarters of the samples: those of
    few steps first, and of equal steps those of low number."""
    found = []
    for edit in edits:
        with restored(engine.model):
            if not edit.neutral:
                with torch.no_grad():
                    edit.prepare(engine.model)
                    edit.edit(engine.model)
            solved = solve(engine, task, numbers, Request(methods=[]), BATCH)
        share = wilson(sum(x.right for x in solved), len(solved))
        ordered = [x.right for x in sorted(solved, key=lambda x: (x.steps, x.number))]
        quarters = [mean(part) if part else None for part in quartered(ordered)]
        told = {"right": share.mean, "low": share.low, "high": share.high, "n": len(solved), "quarters": quarters}
        found.append({"edit": str(edit), **told})
    return found


def collapse(levels: Sequence[float], right: Sequence[float]) -> float | None:
    """The first level at which less than half of what the first one has is right; None: at none of them."""
    return next((level for level, share in zip(levels, right, strict=True) if share < right[0] / 2), None)


def pruned(method: str, sparsity: float) -> WeightEdit:
    """A pruner by its name, at a sparsity.

    Raises:
        ValueError: a method that has no such share.
    """
    made = create_method(method, keep=1 - sparsity)
    if not isinstance(made, WeightEdit):
        raise ValueError(f"{method} changes no weights; choose a pruner, such as magnitude.")
    return made

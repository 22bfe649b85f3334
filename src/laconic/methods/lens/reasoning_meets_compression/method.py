"""When Reasoning Meets Compression as a lens (arXiv 2504.02010)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from laconic import checks
from laconic.decode.marks import end_of_thinking
from laconic.engine.engine import Engine
from laconic.engine.request import Request
from laconic.engine.solving import Solved, solve
from laconic.lens import LensMethod
from laconic.method import register
from laconic.methods.lens.reasoning_meets_compression.behaviours import Response, response
from laconic.methods.lens.reasoning_meets_compression.collapse import BATCH, collapse, curve, pruned
from laconic.methods.lens.reasoning_meets_compression.lengths import Length, report
from laconic.methods.lens.reasoning_meets_compression.probe import importances, intervals, shares, shift
from laconic.methods.lens.reasoning_meets_compression.protection import rounded, worth
from laconic.tasks import find_task
from laconic.tasks.reasoning.recall import Recall
from laconic.weights.matrices import Matrices, matrices
from laconic.weights.quantiser import check_groups


@register(
    "reasoning_meets_compression",
    site="lens",
    mechanism="gradient probe, collapse under compression",
    source="arXiv 2504.02010",
    query_aware=False,
    inferred="behaviours are told by the word that opens a step; rows are protected, where the paper protects modules",
)
@dataclass(kw_only=True)
class ReasoningMeetsCompression(LensMethod):
    """Ask what a model that thinks loses when its weights become fewer or coarser, and on which of them its thinking hangs.

    Four readings: how long right and wrong answers are; which modules each behaviour of the chains hangs on, to first order;
    what the loss of the model's own answers becomes when everything is rounded but the rows that this probe finds most
    important, beside as many drawn ones; and, with `prune`, at which sparsity problems and facts collapse.

    Args:
        task: of the problems, one whose chains have a mark (`laconic.tasks.reasoning`).
        samples: how many problems.
        facts: that the model knows by heart (`laconic.tasks.reasoning.recall`); 0: it knows none.
        share: of the weights that stay as they are while the others are rounded; 0: no rounding, no shift.
        bits, group: of the rounding, 2 to 8 bits, with one step per `group` weights along a row.
        draws: of random rows.
        prune: a pruner such as "magnitude", for the collapse; empty: none.
        levels: its sparsities, joined with "+", the lowest first.

    Raises:
        ValueError: a setting out of range.
        UnsupportedModelError: a model that does not think, whose weights are no linear maps, or whose rows `group` does not
            divide.
    """

    task: str = "arithmetic_verbose"
    samples: int = 32
    facts: int = 0
    share: float = 0.02
    bits: int = 3
    group: int = 32
    draws: int = 8
    prune: str = ""
    levels: str = "0+0.2+0.3+0.4+0.5+0.6+0.7"

    needs_model: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("samples", 1), ("facts", 0), ("group", 1), ("draws", 1)):
            checks.whole(self, name, least)
        checks.between(self, "share", 0, 1)
        checks.between(self, "bits", 2, 8)
        checks.whole(self, "bits", 2)
        self._levels = _levels(self.name, self.levels)

    def look(self, model: Any, tokenizer: Any, text: str | None) -> dict[str, Any]:
        mark, maps = end_of_thinking(model, tokenizer), _named(matrices(model, self.name))
        if self.share:
            check_groups(self.name, maps, self.group)
        engine, task = Engine(model, tokenizer), find_task(self.task)
        problems, knowledge = task.numbers(0, self.samples), Recall(facts=self.facts)
        solved = solve(engine, task, problems, Request(methods=[]), BATCH)
        known = solve(engine, knowledge, knowledge.numbers(0, self.facts), Request(methods=[]), BATCH) if self.facts else []
        lengths = [Length(x.thinking.steps + x.thinking.answer, x.right, not x.thinking.closed) for x in solved]
        found: dict[str, Any] = {"task": self.task, "lengths": report(lengths)}
        answers = [_response(x, tokenizer, mark) for x in (*solved, *known[: self.samples])]
        found["probe"], scores = self.probe(model, maps, answers)
        if self.share and scores:
            found["protection"] = worth(model, maps, scores, answers, self.share, self.bits, self.group, self.draws)
        if self.prune:
            edits = [pruned(self.prune, level) for level in self._levels]
            found["collapse"] = {self.task: self._collapse(curve(engine, edits, task, problems))}
            if self.facts:
                found["collapse"]["facts"] = self._collapse(curve(engine, edits, knowledge, range(self.facts)))
        return found

    def probe(self, model: Any, maps: Matrices, answers: Sequence[Response]) -> tuple[dict[str, Any], list[Tensor]]:
        """The modules of each behaviour that the answers show, and the scores of all rows: every behaviour's channels, made
        to sum to one, added up."""
        found: dict[str, Any] = {}
        scores: list[Tensor] = []
        for behaviour in sorted({name for one in answers for name in one.spans}):
            each, channels = importances(model, maps, answers, behaviour)
            low, high = intervals(each)
            rows = zip(maps, shares(each).tolist(), low.tolist(), high.tolist(), strict=True)
            modules = {name: [share, a, b] for name, share, a, b in sorted(rows, key=lambda x: -x[1])}
            found[behaviour] = {"answers": len(each), "modules": modules}
            if self.share:
                with rounded(model, maps, self.bits, self.group, {}):
                    lost = shift(each, importances(model, maps, answers, behaviour)[0])
                found[behaviour]["shift"] = dict(zip(maps, lost.tolist(), strict=True))
            total = sum(float(x.sum()) for x in channels) or 1.0
            scores = [x / total + (scores[i] if scores else 0) for i, x in enumerate(channels)]
        return found, scores

    def _collapse(self, points: list[dict[str, Any]]) -> dict[str, Any]:
        at = collapse(self._levels, [point["right"] for point in points])
        return {"at": at, "levels": dict(zip(map(str, self._levels), points, strict=True))}


def _response(solved: Solved, tokenizer: Any, mark: tuple[int, ...]) -> Response:
    return response(solved.prompt, solved.ids, [tokenizer.decode([i]) for i in solved.ids], mark)


def _named(layers: list[Matrices]) -> Matrices:
    return {name: linear for layer in layers for name, linear in layer.items()}


def _levels(name: str, text: str) -> list[float]:
    """Sparsities as written."""
    try:
        found = [float(part) for part in str(text).split("+")]
    except ValueError:
        found = []
    if not found or any(not 0 <= x < 1 for x in found) or sorted(found) != found:
        raise ValueError(
            f"{name}: levels={text!r}: write sparsities, 0 <= sparsity < 1, the lowest first, such as '0+0.3+0.5'."
        )
    return found

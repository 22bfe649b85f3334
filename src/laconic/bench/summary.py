"""From rows to lines: one line for each mode, length, method and budget, with intervals and differences to references."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from laconic.bench.comparison import Comparison, comparisons, of_mode
from laconic.bench.specs import NONE
from laconic.bench.statistics import Interval, bootstrap
from laconic.bench.store import Row
from laconic.tasks import Judged, list_tasks

SAME_COST = 0.02
"""Two costs that differ by less than this fraction count as equal."""
Scores = dict[tuple[str, int], float]
"""(task, seed) -> recall."""


@dataclass
class Gain:
    """Mean difference between two lines on the samples that both have.

    Attributes:
        interval: the difference; `against`: the line of the reference with the closest achieved cost, as ``"random 0.25"``;
            over images the two around it, as ``"random 0.25 to 0.5"``; `fair`: the cost is the same.
    """

    interval: Interval
    against: str
    fair: bool


@dataclass
class HardPart:
    """Scores of one line over the samples that are hard for the uncompressed model; see `laconic.bench.media`.

    Attributes:
        tasks: interval per task; tasks without a hard sample are missing.
        mean: of all hard samples, each counting the same, since some tasks have few; None without any.
        samples: how many there are.
    """

    tasks: dict[str, Interval]
    mean: Interval | None
    samples: int

    @classmethod
    def of(cls, tasks: dict[str, list[Row]], seed: int) -> HardPart:
        hard = {task: own for task, group in tasks.items() if (own := [row["score"] for row in group if row["hard"]])}
        return cls(
            tasks={task: bootstrap([values], seed) for task, values in hard.items()},
            mean=bootstrap([list(chain(*hard.values()))], seed) if hard else None,
            samples=sum(len(values) for values in hard.values()),
        )


@dataclass
class Line:
    """One method at one budget, over the samples of all tasks of a mode and length.

    Attributes:
        tasks: interval of the recall per task; `exact`: share of answers that are wholly right, per task.
        mean: of the tasks' recalls, each task counting the same; `turns`: recall of the first question, the second ...,
            over the samples of all tasks.
        gains: differences to the references, by their names; none to itself, and none where a reference did not run.
        achieved: entries that stay of what was compressed; `kv_share`: bytes stored of bytes uncompressed when the answer
            begins, the question included; `flops_share`: prefill FLOPs of the full prompt's, the method's own work included.
        flops_whole: False where rows are of a time when methods' own work was not counted: then `flops_share` lacks it.
        hard: scores over the hard part of the samples; None where the modality has no hard part.
        figures: the tasks' own figures, task -> name -> value; tasks without any are missing.
        seconds: first_token, per_token and compress, medians over samples. Bytes are means, `peak_memory` the maximum.
    """

    mode: str
    length: int
    method: str
    keep: float | None
    query_aware: bool | None
    parameters: dict[str, Any]
    budget: str
    samples: int
    tasks: dict[str, Interval]
    exact: dict[str, float]
    mean: Interval
    turns: list[float]
    asked: float
    achieved: float
    kv_bytes: float
    kv_bytes_full: float
    kv_share: float
    flops_share: float
    flops_whole: bool
    peak_memory: int
    seconds: dict[str, float | None]
    gains: dict[str, Gain] = field(default_factory=dict)
    hard: HardPart | None = None
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    scores: Scores = field(default_factory=dict, repr=False)
    """Recall by (task, seed), for pairing."""

    def as_dict(self) -> dict[str, Any]:
        """Stable keys for ``laconic bench --json``."""
        plain = asdict(self)
        del plain["scores"]
        return {key: value for key, value in plain.items() if value or key not in ("hard", "figures")}

    @property
    def section(self) -> tuple[str, int]:
        return self.mode, self.length

    @property
    def comparison(self) -> Comparison:
        """How methods are compared over these tasks."""
        return of_mode(self.mode)

    @property
    def cost(self) -> float:
        """What methods are compared at, a share of the uncompressed model's."""
        return float(getattr(self, self.comparison.cost))


def summarise(rows: Iterable[Row], seed: int = 0) -> list[Line]:
    """Lines by mode and length, then method, in the order of the rows; the uncompressed model and what the
    others are compared with come first."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["mode"], row["length"], row["method"], row["keep"]), []).append(row)
    lines = [_line(group, seed) for group in groups.values()]
    sections = list(dict.fromkeys(line.section for line in lines))
    first = [NONE, *(name for one in comparisons().values() for name in one.first)]
    order = {method: place for place, method in enumerate(dict.fromkeys([*first, *(x.method for x in lines)]))}
    lines.sort(key=lambda line: (sections.index(line.section), order[line.method], -line.cost))
    for line in lines:
        same = [x for x in lines if x.section == line.section]
        for name in line.comparison.references:
            others = [x for x in same if x.method == name] or [x for x in same if x.method.partition(":")[0] == name]
            if others and line.method not in (NONE, others[0].method):
                if line.comparison.at_equal_cost:  # at its neutral budget the reference is the uncompressed model
                    found = gain_at_equal_cost(line, [*others, *(x for x in same if x.method == NONE)], seed)
                else:
                    other = min(others, key=lambda x: abs(x.cost - line.cost))
                    found = _gain(line.scores, other.scores, _label(other), _close(line.cost, other.cost), seed)
                if found is not None:
                    line.gains[name] = found
    return lines


def gain_at_equal_cost(
    line: Line, reference: list[Line], seed: int = 0, only: Container[tuple[str, int]] | None = None
) -> Gain | None:
    """Difference of a line to a method at the line's cost; see `equal_cost`.

    Args:
        reference: lines of the method at all its budgets, the uncompressed model among them.
        only: (task, seed) of the samples to compare, each counting the same; None: all, each task counting the same.

    Returns:
        None where there is no such sample.
    """
    scores, against, fair = equal_cost(line.cost, reference)
    own = {key: value for key, value in line.scores.items() if only is None or key in only}
    return _gain(own, scores, against, fair, seed, by_task=only is None)


def _line(rows: Sequence[Row], seed: int) -> Line:
    first = rows[0]
    tasks: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: r["seed"]):
        tasks.setdefault(row["task"], []).append(row)
    recall = {task: [row["score"] for row in group] for task, group in tasks.items()}
    return Line(
        mode=first["mode"],
        length=first["length"],
        method=first["method"],
        keep=first["keep"],
        query_aware=first["query_aware"],
        parameters=first["settings"]["parameters"],
        budget=first["settings"]["budget"],
        samples=len(rows),
        tasks={task: bootstrap([values], seed) for task, values in recall.items()},
        exact={task: _mean(group, "exact") for task, group in tasks.items()},
        mean=bootstrap(list(recall.values()), seed),
        turns=[float(np.mean(scores)) for scores in _by_turn(rows)],
        asked=_mean(rows, "asked"),
        achieved=_mean(rows, "achieved"),
        kv_bytes=_mean(rows, "kv_bytes"),
        kv_bytes_full=_mean(rows, "kv_bytes_full"),
        kv_share=_mean(rows, lambda r: r["kv_bytes"] / r["kv_bytes_full"]),
        flops_share=_mean(rows, lambda r: (r["prefill_flops"] + r.get("method_flops", 0)) / r["prefill_flops_full"]),
        flops_whole=all("method_flops" in row for row in rows),
        peak_memory=max(row["peak_memory"] for row in rows),
        seconds={
            "first_token": _median(rows, "seconds_first_token"),
            "per_token": _median(rows, "seconds_per_token"),
            "compress": _median(rows, "seconds_compress"),
        },
        hard=HardPart.of(tasks, seed) if "hard" in first else None,
        figures=_own_figures(tasks),
        scores={(row["task"], row["seed"]): row["score"] for row in rows},
    )


def _own_figures(tasks: dict[str, list[Row]]) -> dict[str, dict[str, float]]:
    """For the tasks that are known here: rows can be summarised without the package that a task comes from."""
    known = {task.name: task for task in list_tasks()}
    judged = {task: [Judged.of(row) for row in group] for task, group in tasks.items() if task in known}
    return {task: found for task, answers in judged.items() if (found := known[task].figures(answers))}


def _by_turn(rows: Sequence[Row]) -> list[list[float]]:
    most = max(len(row["turn_scores"]) for row in rows)
    return [[row["turn_scores"][i] for row in rows if i < len(row["turn_scores"])] for i in range(most)]


def _mean(rows: Sequence[Row], what: str | Callable[[Row], float]) -> float:
    return float(np.mean([what(row) if callable(what) else row[what] for row in rows]))


def _median(rows: Sequence[Row], what: str) -> float | None:
    values = [row[what] for row in rows if row[what] is not None]
    return float(np.median(values)) if values else None


def equal_cost(cost: float, lines: list[Line]) -> tuple[Scores, str, bool]:
    """What a reference scores at `cost`: on the straight line between its two nearest costs, sample by sample.


    Accuracy falls ever faster as tokens are removed, so between two budgets the straight line is a little below the
    reference itself. Nothing is extrapolated: outside the range of its costs the nearest one is used.

    Args:
        lines: of the reference at all its budgets.

    Returns:
        its scores, where they come from, and whether they are at `cost`.
    """
    below = max((x for x in lines if x.cost <= cost), key=lambda x: x.cost, default=None)
    above = min((x for x in lines if x.cost >= cost), key=lambda x: x.cost, default=None)
    near = min(lines, key=lambda x: abs(x.cost - cost))
    if below is None or above is None or _close(cost, near.cost):
        return near.scores, _label(near), _close(cost, near.cost)
    part = (cost - below.cost) / (above.cost - below.cost)
    scores = {key: (1 - part) * low + part * above.scores[key] for key, low in below.scores.items() if key in above.scores}
    return scores, f"{_label(below)} to {_label(above).rpartition(' ')[2]}", True


def _close(cost: float, other: float) -> bool:
    return abs(other - cost) <= SAME_COST * other


def _label(line: Line) -> str:
    return f"{line.method} {line.budget.removeprefix('keep=')}"


def _gain(scores: Scores, other: Scores, against: str, fair: bool, seed: int, by_task: bool = True) -> Gain | None:
    """Over `other`, on the samples that both have; `by_task`: each task counts the same, not each sample."""
    shared: dict[str, list[float]] = {}
    for (task, sample), value in scores.items():
        if (task, sample) in other:
            shared.setdefault(task if by_task else "", []).append(value - other[task, sample])
    return Gain(bootstrap(list(shared.values()), seed), against, fair) if shared else None

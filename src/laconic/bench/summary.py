"""From rows to lines: one line for each mode, length, method and budget, with intervals and differences to `REFERENCES`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from laconic.bench.grid import NONE, REFERENCES
from laconic.bench.statistics import Interval, bootstrap
from laconic.bench.store import Row

SAME_COST = 0.02
"""Two KV shares that differ by less than this part of themselves count as equal cost."""


@dataclass
class Gain:
    """Mean difference of a line to another on the samples that both have.

    Attributes:
        interval: the difference; `against`: the line of the reference with the closest achieved KV bytes, as
            ``"random 0.25"``; `fair`: its bytes are the same.
    """

    interval: Interval
    against: str
    fair: bool


@dataclass
class Line:
    """One method at one budget, over the samples of all tasks of a mode and length.

    Attributes:
        tasks: interval of the recall per task; `exact`: share of answers that are wholly right, per task.
        mean: of the tasks' recalls, each task counting the same; `turns`: recall of the first question, the second ...,
            over the samples of all tasks.
        gains: differences to the references, by their names; none to itself, and none where a reference did not run.
        achieved: entries that stay of what was compressed; `kv_share`: bytes stored of bytes uncompressed when the answer
            begins, the question included; `flops_share`: prefill FLOPs of the full prompt's.
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
    peak_memory: int
    seconds: dict[str, float | None]
    gains: dict[str, Gain] = field(default_factory=dict)
    scores: dict[tuple[str, int], float] = field(default_factory=dict, repr=False)
    """Recall by (task, seed), for pairing."""

    def as_dict(self) -> dict[str, Any]:
        """Stable keys for ``laconic bench --json``."""
        plain = asdict(self)
        del plain["scores"]
        return plain

    @property
    def section(self) -> tuple[str, int]:
        return self.mode, self.length


def summarise(rows: Iterable[Row], seed: int = 0) -> list[Line]:
    """Lines by mode and length, then method, in the order of the rows; the uncompressed model and `random` first."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["mode"], row["length"], row["method"], row["keep"]), []).append(row)
    lines = [_line(group, seed) for group in groups.values()]
    sections = list(dict.fromkeys(line.section for line in lines))
    order = {method: place for place, method in enumerate(dict.fromkeys([NONE, REFERENCES[0], *(x.method for x in lines)]))}
    lines.sort(key=lambda line: (sections.index(line.section), order[line.method], -line.kv_share))
    for line in lines:
        for name in REFERENCES:
            others = [x for x in lines if x.section == line.section and x.method.partition(":")[0] == name]
            if others and line.method not in (NONE, others[0].method):
                _compare(name, line, others, seed)
    return lines


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
        flops_share=_mean(rows, lambda r: r["prefill_flops"] / r["prefill_flops_full"]),
        peak_memory=max(row["peak_memory"] for row in rows),
        seconds={
            "first_token": _median(rows, "seconds_first_token"),
            "per_token": _median(rows, "seconds_per_token"),
            "compress": _median(rows, "seconds_compress"),
        },
        scores={(row["task"], row["seed"]): row["score"] for row in rows},
    )


def _by_turn(rows: Sequence[Row]) -> list[list[float]]:
    most = max(len(row["turn_scores"]) for row in rows)
    return [[row["turn_scores"][i] for row in rows if i < len(row["turn_scores"])] for i in range(most)]


def _mean(rows: Sequence[Row], what: str | Callable[[Row], float]) -> float:
    return float(np.mean([what(row) if callable(what) else row[what] for row in rows]))


def _median(rows: Sequence[Row], what: str) -> float | None:
    values = [row[what] for row in rows if row[what] is not None]
    return float(np.median(values)) if values else None


def _compare(name: str, line: Line, others: list[Line], seed: int) -> None:
    """Set the gain over the line of `others` whose achieved bytes are closest, over the samples that both have."""
    other = min(others, key=lambda x: abs(x.kv_share - line.kv_share))
    shared: dict[str, list[float]] = {}
    for (task, sample), value in line.scores.items():
        if (task, sample) in other.scores:
            shared.setdefault(task, []).append(value - other.scores[task, sample])
    if not shared:
        return
    line.gains[name] = Gain(
        bootstrap(list(shared.values()), seed),
        f"{other.method} {other.budget.removeprefix('keep=')}",
        abs(other.kv_share - line.kv_share) <= SAME_COST * other.kv_share,
    )

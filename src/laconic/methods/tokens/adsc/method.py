"""ADSC: a few layers pass on every r-th visual token only; a model so tuned packs what matters into them (2602.12618)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic import checks
from laconic.errors import BudgetError
from laconic.method import register
from laconic.ops.pool import pool_rows
from laconic.stream.assemble import assemble
from laconic.stream.blocks import at_depth, blocks
from laconic.stream.contract import Cut, Stream
from laconic.stream.tuned import TunedMethod

PUBLISHED = (8, 14, 19)


def every(n: int, factor: int, mode: str = "last") -> Tensor:
    """Which of n tokens stay, ascending, [ceil(n / factor)]: the last (or first) of each group of `factor`. An incomplete
    group keeps one too."""
    if mode == "first":
        return torch.arange(0, n, factor)
    return torch.arange(factor - 1, n + factor - 1, factor).clamp(max=n - 1)


def visual_share(layers: tuple[int, ...], factor: int, depth: int) -> float:
    """F: share of visual tokens processed, mean over `depth` layers, with a bottleneck before each of `layers`."""
    return sum(factor ** -sum(b <= layer for b in layers) for layer in range(depth)) / depth


@cache
def schedule(share: float, bottlenecks: int, factor: int, depth: int) -> tuple[int, ...] | None:
    """Evenly spaced layers (gaps differ by one at most) whose F is `share` or just below; None where there are none.

    Of those within 2 % of the best the one whose first bottleneck is nearest to a quarter of the depth, where the published
    share has it.
    """
    found: list[tuple[float, tuple[int, ...]]] = []
    for first in range(depth):
        for span in range(bottlenecks - 1, depth - first):
            steps = max(1, bottlenecks - 1)
            layers = tuple(first + (2 * i * span + steps) // (2 * steps) for i in range(bottlenecks))
            got = visual_share(layers, factor, depth)
            if got <= share + 1e-9:
                found.append((got, layers))
            if bottlenecks == 1:
                break
    if not found:
        return None
    near = [entry for entry in found if entry[0] >= max(found)[0] - 0.02 * share]
    return min(near, key=lambda entry: (abs(entry[1][0] - depth / 4), -entry[0]))[1]


@register(
    "adsc",
    site="tokens",
    modality="image",
    mechanism="uniform down-sampling",
    principle="transformation",
    source="arXiv 2602.12618",
    query_aware=False,
    training="none",
    inferred="a reconstruction from the abstract: layers, factors, which token of a group stays, budgets, training",
)
@dataclass(kw_only=True)
class ADSC(TunedMethod):
    """Uniform bottlenecks: before each of a few layers only every r-th visual token stays, whatever it holds.

    The last token of a group stays: under causal attention it has seen the others. No scores, no attention maps. Use on a
    model that was not tuned with the same bottlenecks is zero-shot. Only the abstract was available, so all numbers are our
    own.

    Args:
        layers: decoder layers with a bottleneck before them. None: 8, 14 and 19 of 32, scaled to the model's depth, or with
            a budget evenly spaced layers that meet it.
        bottlenecks: how many, with a budget.
        factor: r. None: 2, or with a budget the smallest power of two that meets it.
        mode: "last" or "first" token of each group, or "avg": their mean, at the place of the last.
        grid: a bottleneck keeps every r-th column of the image, the next one every r-th row, and so on, instead of every
            r-th token in raster order (not with "avg").
        artifact: what `laconic fit adsc` wrote: a file, a shipped name, or a Hub id. The tuned decoder then runs, with the
            bottlenecks that it was tuned with unless layers, factor or a budget are given. None: the model as it is.

    Raises:
        ValueError: a mode or grid that the artifact was not tuned with.
    """

    layers: tuple[int, ...] | None = None
    bottlenecks: int = 3
    factor: int | None = None
    mode: Literal["last", "first", "avg"] = "last"
    grid: bool = False

    default_keep: ClassVar[float | None] = None
    claims: ClassVar[frozenset[str]] = frozenset({"stream.bottlenecks"})
    """A seam of its own, not the whole stream: it also works after a method that shortens the decoder's input."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, "mode", "last", "first", "avg")
        if self.grid and self.mode == "avg":
            raise ValueError("adsc: grid=True picks whole rows and columns, so mode must be 'last' or 'first'.")
        if self.layers is not None and (not self.budget_from_parameters or list(self.layers) != sorted(set(self.layers))):
            raise ValueError(f"adsc: layers={self.layers} must be ascending, and cannot be given together with a budget.")
        if self.bottlenecks < 1 or (self.factor is not None and self.factor < 1):
            raise ValueError(f"adsc: bottlenecks={self.bottlenecks} and factor={self.factor} must be at least 1.")

    def attach(self, model: PreTrainedModel) -> None:
        super().attach(model)
        for name in ("mode", "grid") if self.tuned is not None else ():
            given, tuned = getattr(self, name), self.tuned_with(name)
            if given != tuned:
                raise ValueError(f"adsc: {name}={given!r}: this artifact was tuned with {name}={tuned!r}; give that.")

    @property
    def neutral(self) -> bool:
        return self.factor == 1 or self.layers == () or super().neutral

    def cuts(self, depth: int) -> tuple[int, ...]:
        if self.neutral:
            return ()
        if self.budget_from_parameters or self.keep is not None:
            return self._plan(self.keep, depth)[0]
        return tuple(range(depth))  # the share is known only when a prompt comes

    def _plan(self, share: float | None, depth: int) -> tuple[tuple[int, ...], int]:
        """Layers with a bottleneck, and the factor.

        Raises:
            BudgetError: no evenly spaced layers meet the share.
        """
        if share is None:
            known = self.layers or self.tuned_with("layers") or sorted({at_depth(layer, depth) for layer in PUBLISHED})
            return tuple(known), self.factor or self.tuned_with("factor") or 2
        if share >= 1:
            return (), 1
        for factor in (2, 4, 8, 16) if self.factor is None else (self.factor,):
            layers = schedule(share, min(self.bottlenecks, depth), factor, depth) or ()
            if layers:
                return layers, factor
        raise BudgetError(
            f"adsc: {self.bottlenecks} bottlenecks with factor={self.factor or 16} cannot get down to a share of "
            f"{share:.4f} over {depth} layers; raise the factor or the budget."
        )

    def cut(self, stream: Stream) -> Cut | None:
        rows_of_batch = range(len(stream.hidden))
        plans = [
            self._plan(None if self.budget_from_parameters else self._share(stream, b), stream.depth) for b in rows_of_batch
        ]
        if not any(stream.layer in layers for layers, _ in plans):
            return None
        kept, values = [], []
        for b, (layers, factor) in enumerate(plans):
            stay: list[Tensor] = [stream.hidden.new_zeros(0, dtype=torch.long)]
            means: list[Tensor] = []
            for rows in blocks(stream, b):
                if stream.layer not in layers:
                    stay.append(rows)
                elif self.grid:
                    stay.append(self._on_grid(stream, b, rows, factor, layers.index(stream.layer)))
                else:
                    stay.append(rows[every(len(rows), factor, self.mode)])
                if self.mode == "avg":
                    means.append(
                        _means(stream.hidden[b, rows], factor) if stream.layer in layers else stream.hidden[b, rows]
                    )
            kept.append(torch.cat(stay))
            values.append(torch.cat(means) if means else None)
        return assemble(stream, kept, values)

    def _share(self, stream: Stream, row: int) -> float:
        """The share that the budget leaves to one sequence, mean over layers."""
        total = int((stream.visual.mask & ~stream.visual.separators)[row].sum())
        return self.allowance(total, len(stream.texts(row)), stream.entry_bytes) / max(total, 1)

    def _on_grid(self, stream: Stream, row: int, rows: Tensor, factor: int, number: int) -> Tensor:
        """Those of `rows` in every r-th remaining column (bottlenecks 0, 2, ...) or row of their view."""
        place = stream.place[row, rows]
        stays = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        for span in stream.visual.spans:
            cells = span.cells.to(place)
            left = torch.isin(cells, place) & (cells >= 0)
            if span.row != row or not bool(left.any()):
                continue
            lines = left.any(number % 2).nonzero()[:, 0]
            lines = lines[every(len(lines), factor, self.mode)]
            chosen = cells.index_select(1 - number % 2, lines)
            stays |= torch.isin(place, chosen)
        return rows[stays]


def _means(values: Tensor, factor: int) -> Tensor:
    """Means of groups of `factor` rows [v, D], the last of which may be smaller, [ceil(v / factor), D]."""
    full = len(values) // factor * factor
    rest = [values[full:].mean(0, keepdim=True)] if full < len(values) else []
    return torch.cat([pool_rows(values, factor), *rest])

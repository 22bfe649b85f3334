"""Fitting FitPrune: the smallest common divergence of attention totals whose deletions meet a FLOPs budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import floor
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.families import family_of
from laconic.fit.contract import Fit
from laconic.fit.images import batched, chosen
from laconic.measure.cost import Shape
from laconic.methods.tokens.fitprune.method import received, shares_left
from laconic.session import compress
from laconic.stream.assemble import assemble
from laconic.stream.contract import Cut, Stream, TokenMethod

STEP = 0.01
"""The search ends when alpha is known to this precision."""


def candidates(received: Tensor, reference: float, alpha: float) -> Tensor:
    """Which tokens [v] a distribution can spare, bool: the most of the smallest whose removal leaves
    ``reference * (1 - alpha)`` of the sum; never all of them."""
    order = received.sort(stable=True).indices
    left = received.sum() - received[order].cumsum(0)
    count = min(int((left >= reference * (1 - alpha)).sum()), len(received) - 1)
    spared = torch.zeros(len(received), dtype=torch.bool, device=received.device)
    spared[order[: max(0, count)]] = True
    return spared


def macs(entering: Sequence[float], leaving: Sequence[float], project: int, rest: int, width: int) -> float:
    """Multiply-adds of the visual tokens: `entering` tokens [L] pay projections and scores, those `leaving` each layer the
    output projection and the FFN. The paper's accounting; as laconic runs, all that enter pay all."""
    pairs = zip(entering, leaving, strict=True)
    return sum(project * n + 2 * n * n * width + rest * m for n, m in pairs)


@dataclass(kw_only=True)
class Sweep(TokenMethod):
    """Runs samples and notes totals of attention (alpha=None), or deletes what both distributions can spare.

    Attributes:
        totals: by layer and sample (cross, self) of the unpruned model.
        entering: visual tokens that enter each layer from 1 on, by sample.
    """

    alpha: float | None = None
    totals: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    entering: dict[int, list[int]] = field(default_factory=dict)

    name = "fitprune"

    def cuts(self, depth: int) -> range:
        return range(1, depth)

    def observes(self, depth: int) -> range:
        return range(depth - 1)

    def cut(self, stream: Stream) -> Cut | None:
        found = received(stream)
        if self.alpha is None:
            self.totals[stream.layer - 1] = [(float(cross.sum()), float(own.sum())) for cross, own in found]
            self.entering[stream.layer] = [len(own) for _, own in found]
            return None
        kept = []
        for b, (cross, own) in enumerate(found):
            whole = self.totals[stream.layer - 1][b]
            gone = candidates(cross, whole[0], self.alpha) & candidates(own, whole[1], self.alpha)
            kept.append(stream.images(b)[~gone])
        self.entering[stream.layer] = [len(rows) for rows in kept]
        return assemble(stream, kept)


@dataclass(kw_only=True)
class FitPruneFit(Fit):
    """Attention of a few samples, one pass each without and about seven with deletions per fitted reduction.

    Args:
        reductions: FLOPs of the visual tokens to save, in percent; deletions are fitted for each. Those out of reach
            (a model with few layers pays for all tokens in its first one) are left out, and noted.
        samples: number of images, each with a question (24).
        batch_size: samples that run together (8).
        file: JSON lines with "image" and "question" instead of drawn scenes; all of them are used.
    """

    reductions: tuple[int, ...] = (50, 60, 80, 90)
    samples: int = 24
    batch_size: int = 8
    file: str = ""

    method: ClassVar[str] = "fitprune"

    def facts(self) -> dict[str, Any]:
        asked = chosen(self.file, self.samples, self.seed)
        search = Search(self.model, batched(self.tokenizer, asked, self.batch_size, self.model.device))
        fits = []
        for reduction in self.reductions:
            found = search.fit(1 - reduction / 100)
            if found is None:
                self.note(f"{reduction} % of the FLOPs cannot be saved: left out")
                continue
            alpha, deleted = found
            saved, gone = 1 - search.share_of_macs(deleted), 100 * sum(deleted)
            self.note(f"{reduction} %: alpha {alpha:.3f}, saves {100 * saved:.1f} %, deletes {gone:.1f} % of the tokens")
            fits.append({"reduction": reduction, "alpha": round(alpha, 4), "deleted": [round(d, 6) for d in deleted]})
        return {"fits": fits} if fits else {}


class Search:
    """Deletions of one model on some batches of inputs; finished sweeps are remembered.

    Attributes:
        whole: visual tokens of each sample.
    """

    def __init__(self, model: PreTrainedModel, batches: list[dict[str, Tensor]]):
        self.model, self.batches = model, batches
        self.shape = Shape.of(model, family_of(model).stack(model))
        self.depth = self.shape.layers
        self._totals: list[dict[int, list[tuple[float, float]]]] = []
        self.whole: list[int] = []
        for given in batches:
            sweep = Sweep(keep=0.5)
            self._pass(given, sweep)
            self._totals.append(sweep.totals)
            self.whole += sweep.entering[1]
        self._swept: dict[float, list[list[int]]] = {}

    def _pass(self, given: dict[str, Tensor], sweep: Sweep) -> None:
        with torch.inference_mode(), compress(self.model, sweep):
            self.model(**given, logits_to_keep=1)

    def sweep(self, alpha: float) -> list[list[int]]:
        """Visual tokens that enter each layer, by sample, [samples][L], when every layer deletes what alpha allows."""
        if alpha not in self._swept:
            found: list[list[int]] = []
            for given, totals in zip(self.batches, self._totals, strict=True):
                sweep = Sweep(keep=0.5, alpha=alpha, totals=totals)
                self._pass(given, sweep)
                found += [list(row) for row in zip(*(sweep.entering[i] for i in range(1, self.depth)), strict=True)]
            self._swept[alpha] = [[n, *row] for n, row in zip(self.whole, found, strict=True)]
        return self._swept[alpha]

    def macs(self, entering: Sequence[float]) -> float:
        """Multiply-adds as they run: everything that enters a layer goes all the way through it."""
        weights, width = self.shape.weights, self.shape.heads * self.shape.head_dim
        return sum(macs([n], [n], 0, weight, width) for n, weight in zip(entering, weights, strict=True))

    def reached(self, entering: list[list[int]], budget: float) -> int | None:
        """The first layer from which nothing more has to be deleted for a mean of `budget` multiply-adds; None: no such."""
        for layer in range(self.depth):
            forecast = sum(self.macs(stopped(row, layer)) for row in entering) / len(entering)
            if forecast <= budget:
                return layer
        return None

    def fit(self, share: float) -> tuple[float, list[float]] | None:
        """The smallest alpha that leaves `share` of the multiply-adds, and the share of the tokens that each layer deletes,
        [L]; None when none does."""
        budget = share * sum(self.macs([n] * self.depth) for n in self.whole) / len(self.whole)
        low, high, best = 0.0, 1.0, None
        while high - low > STEP:
            alpha = (low + high) / 2
            entering = self.sweep(alpha)
            layer = self.reached(entering, budget)
            if layer is None:
                low = alpha
            else:
                high, best = alpha, (alpha, self.deleted([stopped(row, layer) for row in entering]))
        return best

    def deleted(self, entering: list[list[int]]) -> list[float]:
        """Mean share of the tokens that each layer deletes; of samples with equally many tokens the mean number, rounded
        down, as published."""
        deleted = [[a - b for a, b in zip(row, [*row[1:], row[-1]], strict=True)] for row in entering]
        columns = list(zip(*deleted, strict=True))
        if len(set(self.whole)) == 1:
            return [floor(sum(column) / len(column)) / self.whole[0] for column in columns]
        return [sum(d / n for d, n in zip(column, self.whole, strict=True)) / len(column) for column in columns]

    def share_of_macs(self, deleted: list[float]) -> float:
        """Multiply-adds that these deletions leave, over all."""
        shares = shares_left(deleted)
        spent = sum(self.macs([share * n for share in shares]) for n in self.whole)
        return spent / sum(self.macs([n] * self.depth) for n in self.whole)


def stopped(entering: list[int], layer: int) -> list[int]:
    """The same when nothing is deleted from `layer` on."""
    return [n if i <= layer else entering[layer] for i, n in enumerate(entering)]

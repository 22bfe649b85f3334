"""FitPrune: how many visual tokens each layer deletes is fitted offline; attention says which ones (arXiv 2409.10197)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.errors import BudgetError
from laconic.method import register
from laconic.ops.peaks import peak_mass
from laconic.stream.assemble import assemble, choose
from laconic.stream.contract import Cut, Stream, TokenMethod

PUBLISHED_REDUCTION = 60


def received(stream: Stream) -> list[tuple[Tensor, Tensor]]:
    """Attention that the visual tokens of each batch row get in the layer before, its largest value over heads: mean over
    the text after the last image (cross) and over the visual tokens themselves (self), fp64 [v] each.

    Raises:
        ValueError: no text follows the images.
    """
    obs = stream.obs
    assert obs is not None
    groups = torch.stack([torch.zeros_like(stream.shown), stream.shown], 1)
    for b in range(len(groups)):
        at, text = stream.images(b), stream.texts(b)
        asking = text[text > at[-1]] if len(at) else text
        if not len(asking):
            raise ValueError("fitprune ranks visual tokens by the text after them, but a prompt ends with its image.")
        groups[b, 0, asking] = True
    sums = peak_mass(obs.queries, obs.keys, obs.scale, groups, bias=obs.bias, softcap=obs.softcap)
    means = sums[..., -obs.new :] / groups.sum(-1, keepdim=True).clamp(min=1)
    return [(means[b, 0, stream.shown[b]], means[b, 1, stream.shown[b]]) for b in range(len(groups))]


def shares_left(deleted: Sequence[float]) -> list[float]:
    """Share of the visual tokens that enters each layer, when layer l deletes the share ``deleted[l]``."""
    left = [1.0]
    for share in deleted[:-1]:
        left.append(max(0.0, left[-1] - share))
    return left


def for_budget(fits: list[list[float]], share: float) -> list[float] | None:
    """Shares that enter each layer with mean `share`: between the two fits next to it, [L]; None below all of them."""
    curves = sorted([[1.0] * len(fits[0]), *fits], key=sum)
    for low, high in pairwise(curves):
        below, above = sum(low) / len(low), sum(high) / len(high)
        if below - 1e-9 <= share <= above + 1e-9:
            weight = 0.0 if above == below else min(1.0, max(0.0, (share - below) / (above - below)))
            return [a + weight * (b - a) for a, b in zip(low, high, strict=True)]
    return None


@register(
    "fitprune",
    site="tokens",
    modality="image",
    mechanism="pruning",
    principle="attention",
    source="arXiv 2409.10197",
    query_aware=True,
    training="calibration",
    inferred="budgets between fitted ones, several images, tokens leave between layers and not within one",
)
@dataclass(kw_only=True)
class FitPrune(TokenMethod):
    """After each layer, remove a number of visual tokens that was fitted to a FLOPs budget: those least attended to.

    An artifact says how many; in each sample, those whose attention from text times that from visual tokens is smallest.
    Survivors keep order and positions.

    Layer l's cache keeps what layer l ran on. The paper deletes within layer l, between attention and its output
    projection; here tokens leave after layer l, which gives the survivors the same numbers and costs layer l's FFN.

    Args:
        reduction: percent of the visual tokens' FLOPs to save; one that was fitted. 60 when nothing else is
            given. With a budget instead, the fits next to it are interpolated, so that the mean share is met.
        artifact: what `laconic fit fitprune` wrote: a file, a shipped name, or a Hub id. None takes the one shipped for
            these weights.

    Raises:
        ArtifactError: none for this model.
        BudgetError: a budget below all fits, or a reduction that was not fitted.
    """

    reduction: int | None = None
    artifact: str | None = None

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reduction is not None and not self.budget_from_parameters:
            raise ValueError(f"fitprune: give reduction={self.reduction} or a budget ({self.budget}), not both.")
        self._fits: dict[int, list[float]] = {}

    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral:
            return
        data: dict[str, Any] = Artifact.find(self.name, model, self.artifact).data
        self._fits = {int(fit["reduction"]): shares_left(fit["deleted"]) for fit in data["fits"]}
        if self.budget_from_parameters or self.keep is not None:
            self._left(self.keep)

    def _left(self, share: float | None) -> list[float]:
        """Share of the visual tokens that enters each layer, [L]."""
        if share is None:
            wanted = self.reduction or PUBLISHED_REDUCTION
            if wanted not in self._fits:
                raise BudgetError(
                    f"fitprune: the artifact was fitted for reductions of {', '.join(map(str, sorted(self._fits)))} "
                    f"percent, not for {wanted}; take one of them, a budget (keep=), or fit one with `laconic fit "
                    f"fitprune --set reductions={wanted}`."
                )
            return self._fits[wanted]
        left = for_budget(list(self._fits.values()), share)
        if left is None:
            least = min(sum(fit) / len(fit) for fit in self._fits.values())
            raise BudgetError(
                f"fitprune: a share of {share:.4f} is below what the artifact was fitted for ({least:.4f}); ask for more, "
                "or fit a larger reduction with `laconic fit fitprune --set reductions=...`."
            )
        return left

    def cuts(self, depth: int) -> list[int]:
        if not self._fits:
            return []
        left = [self._left(self.keep)] if self.budget_from_parameters or self.keep is not None else list(self._fits.values())
        if len(left[0]) != depth:
            raise ValueError(f"fitprune: the artifact is for {len(left[0])} layers, the model has {depth}.")
        return [layer for layer in range(1, depth) if any(curve[layer] < curve[layer - 1] for curve in left)]

    def observes(self, depth: int) -> Collection[int]:
        return [layer - 1 for layer in self.cuts(depth)]

    def cut(self, stream: Stream) -> Cut | None:
        counts = [self._count(stream, b) for b in range(len(stream.hidden))]
        if all(len(stream.images(b)) <= count for b, count in enumerate(counts)):
            return None
        scores = [cross * own for cross, own in received(stream)]
        kept = []
        for b, (score, count) in enumerate(zip(scores, counts, strict=True)):
            kept.append(stream.images(b)[choose(score, min(count, len(score)), stream.must(b))])
        return assemble(stream, kept, scores=scores)

    def _count(self, stream: Stream, row: int) -> int:
        """Visual tokens of one sequence that enter the layer that runs next; one at least."""
        total = int((stream.visual.mask & ~stream.visual.separators)[row].sum())
        share = None
        if not self.budget_from_parameters:
            share = self.allowance(total, len(stream.texts(row)), stream.entry_bytes) / max(total, 1)
        return max(1, round(self._left(share)[stream.layer] * total))

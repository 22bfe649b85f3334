"""DART: a few pivots, and the visual tokens least like them (arXiv 2502.11494)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic import checks
from laconic.families.base import GENERIC
from laconic.families.vision import deepstack_of
from laconic.method import register
from laconic.ops.similarity import cosine
from laconic.stream.assemble import assemble, check_protected, choose
from laconic.stream.blocks import at_depth
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.equal_budget import tokens_after
from laconic.stream.observed import at_rows, observation


@register(
    "dart",
    site="tokens",
    modality="image",
    mechanism="pruning",
    principle="similarity",
    source="arXiv 2502.11494",
    query_aware=True,
    inferred="the order of pivots; exact budgets; K scales with the depth of the model, and comes after DeepStack's layers",
)
@dataclass(kw_only=True)
class DART(TokenMethod):
    """Before layer K, keep the pivots among the visual tokens, and for every pivot in turn the tokens least similar to it.

    Pivots are the visual tokens, and the tokens of the text after the last image, whose keys in layer K - 1 (with RoPE, all
    heads) have the largest L1 norm. Similarity is the cosine of the stream before layer K after the decoder's final norm.
    Visual pivots come first, by falling norm, then those of the text, which serve for comparing only; each takes the same
    number of tokens from what those before it left. All images of a sequence are one pool.

    Args:
        layer: K, at least 1; None: 2 of 32, scaled to the model's depth, or the first layer at which the model lets the
            stream be shortened (DeepStack).
        pivots, text_pivots: how many of each.
        reduction: the share to remove where no budget is given: of c = int(N (1 - reduction)) every pivot gets
            floor(c / pivots of both kinds), and the visual pivots come on top, as published. A budget is met exactly.
        limit: c itself, instead of `reduction`; the release's 128 of 576 keep 132.
    """

    layer: int | None = None
    pivots: int = 4
    text_pivots: int = 4
    reduction: float = 0.778
    limit: int | None = None

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.reduction < 1:
            raise ValueError(
                f"dart: reduction={self.reduction} is the share of visual tokens to remove; it must be in [0, 1)."
            )
        checks.whole(self, "pivots")
        checks.whole(self, "text_pivots")
        if self.pivots + self.text_pivots == 0:
            raise ValueError("dart: pivots=0 and text_pivots=0 leave nothing to compare tokens with.")
        for name in ("layer", "limit"):
            if getattr(self, name) is not None:
                checks.whole(self, name, 1)

        self._first = 0

    def attach(self, model: PreTrainedModel) -> None:
        self._norm: Any = GENERIC.stack(model).norm
        self._first = deepstack_of(model)

    def _k(self, depth: int) -> int:
        return max(at_depth(2, depth), self._first) if self.layer is None else self.layer

    def cuts(self, depth: int) -> tuple[int, ...]:
        return () if self._k(depth) == depth else (self._k(depth),)

    def observes(self, depth: int) -> Collection[int]:
        return [layer - 1 for layer in self.cuts(depth)]

    def cut(self, stream: Stream) -> Cut | None:
        sizes = at_rows(stream, observation(stream).keys.float().abs().sum((1, 3)))
        seen, kept = self._norm(stream.hidden), []
        for b in range(len(stream.hidden)):
            at, must = stream.images(b), stream.must(b).to(stream.hidden.device)
            if not len(at):
                kept.append(at)
                continue
            texts = stream.texts(b)
            texts = texts[texts > at[-1]]
            if self.text_pivots and not len(texts):
                raise ValueError(
                    "dart: no text follows the last image, so there are no text pivots; ask after the image, or set "
                    "text_pivots=0."
                )
            words = by_size(sizes[b, texts], self.text_pivots)
            count = None if self.budget_from_parameters else tokens_after(self, stream, b)
            pivots = by_size(sizes[b, at], self._visual_pivots(len(at), len(words), count, int(must.sum())))
            stays = must.clone()
            stays[pivots] = True
            shares = self._shares(stays, len(pivots) + len(words), count)
            kept.append(at[least_like(seen[b, at], seen[b, torch.cat([at[pivots], texts[words]])], shares, stays)])
        return assemble(stream, kept)

    def _visual_pivots(self, total: int, words: int, count: int | None, protected: int) -> int:
        """How many; at most half of what a small budget leaves, and one at least where there are no others."""
        if count is None:
            return min(self.pivots, total)
        check_protected(protected, count)
        return min(self.pivots, max((count - protected) // 2, int(words == 0 and count > protected)))

    def _shares(self, stays: Tensor, pivots: int, count: int | None) -> list[int]:
        """How many tokens every pivot takes besides those that stay already."""
        there = int(stays.sum())
        if count is not None:
            each, more = divmod(count - there, max(pivots, 1))
            return [each + (i < more) for i in range(pivots)]
        wanted = int(len(stays) * (1 - self.reduction)) if self.limit is None else self.limit
        return [min(wanted, len(stays) - there) // pivots] * pivots


def by_size(x: Tensor, count: int) -> Tensor:
    """Places of the `count` largest of x [n], the largest first, of equal ones the earlier; [min(count, n)]."""
    return x.argsort(descending=True, stable=True)[:count]


def least_like(x: Tensor, pivots: Tensor, shares: Sequence[int], stays: Tensor) -> Tensor:
    """Which of the visual tokens x [v, D] stay, ascending: those that do anyway, `stays` [v] bool, and for each of `pivots`
    [p, D] in turn as many as its share of the least similar ones that are left."""
    stays = stays.clone()
    for alike, share in zip(cosine(pivots, x), shares, strict=True):
        stays[choose((-alike).masked_fill(stays, float("-inf")), share)] = True
    return stays.nonzero()[:, 0]

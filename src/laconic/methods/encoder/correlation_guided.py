"""Correlation-guided compression of document crops: as many tokens as a crop carries information (arXiv 2407.14439)."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic import checks
from laconic.errors import BudgetError, UnsupportedModelError
from laconic.families.vision import Visual, VisualSpan, encoder_depth, vision_family_of
from laconic.method import register
from laconic.ops.outliers import iqr_outliers
from laconic.ops.similarity import folded, nearest, unit
from laconic.stream.assemble import assemble, choose
from laconic.stream.contract import POLICIES, Cut, Policy, Stream, TokenMethod
from laconic.stream.shares import spread
from laconic.stream.views import vectors

BLOCK = 256


@register(
    "correlation_guided",
    site="encoder",
    modality="image",
    mechanism="pruning",
    principle="similarity, attention",
    source="arXiv 2407.14439",
    query_aware=False,
    inferred="a reconstruction, no code was released: thresholds, layers, the share that counts as redundant, sampling, "
    "merging, merged patches, images of one view, budgets",
)
@dataclass(kw_only=True)
class CorrelationGuided(TokenMethod):
    """A crop keeps tokens in proportion to its non-redundant patches, and those with high CLS attention.

    For the N patches of a crop, with keys k and CLS attention p of a low encoder layer and CLS attention g of a deep one:

        m_i = number of j != i with cos(k_i, k_j) > theta;  patch i is redundant if m_i > repeats * N
        density d = 1 - share of redundant patches;  n = max(least, ceil(d N)) tokens are drawn by p, without replacement
        in addition, all tokens stay with g_i > Q3 + factor * (Q3 - Q1)

    The view of the whole image stays untouched. An image with a single view counts as a crop, and so does every frame of a
    video; crops that the model stitched and resampled count as one. Where the model merges patches, a token has the mean p
    and g of its patches, and is redundant only if all of them are.

    Args:
        keep, tokens, bytes: a budget scales the crops' densities so that it is met, the whole view included; deep outliers
            then come first. Without one the densities decide.
        theta: cosine of keys above which patches are alike. `repeats`: share of the patches that must be alike.
        least: minimum number of tokens that a crop keeps.
        low, deep: encoder layers, from 0 or from the end; None: the paper's 2 of 24, scaled by depth and rounded, and the
            layer that gives the features.
        draw: ``"sample"``: by p, seeded; ``"top"``: the highest p.
        factor: of the interquartile range.
        merge: dropped tokens are averaged into the kept token whose low-layer key is nearest.
        positions: ``"renumber"``: positions are renumbered without gaps; ``"gather"``: tokens keep theirs.

    Raises:
        UnsupportedModelError: the encoder has no CLS token.
        BudgetError: views of whole images leave no room for crops.
    """

    theta: float = 0.9
    repeats: float = 0.1
    least: int = 16
    low: int | None = None
    deep: int | None = None
    draw: Literal["sample", "top"] = "sample"
    seed: int = 0
    factor: float = 1.5
    merge: bool = False
    positions: Policy = "renumber"

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.between(self, "theta", -1, 1)
        checks.between(self, "repeats")
        if self.least < 1:
            raise BudgetError(f"correlation_guided: least={self.least} must be at least 1.")
        checks.one_of(self, "draw", "sample", "top")
        checks.one_of(self, "positions", *POLICIES)

    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral:
            return
        family = vision_family_of(model)
        if not family.has_cls(model):
            raise UnsupportedModelError(
                f"correlation_guided reads the CLS token, and the vision encoder of this {family.name} model has none; use "
                "a method that reads features only."
            )
        self._low = round(encoder_depth(model) / 12) if self.low is None else self.low
        self._deep = family.feature_layer(model) if self.deep is None else self.deep

    def encoder_layers(self, depth: int) -> Collection[int]:
        return () if self.neutral else {self._low, self._deep}

    def cut(self, stream: Stream) -> Cut | None:
        kept, values, ranked = [], [], []
        for row in range(len(stream.hidden)):
            shown = stream.images(row)
            whole, spans = crops_of(stream.visual, row)
            crops = [self._look(stream.visual, span) for span in spans]
            stays = [shown[:0], *(span.tokens.to(shown) for span in whole)]
            becomes = [stream.hidden[row, rows] for rows in stays]
            scores = torch.full_like(stream.hidden[row, :, 0], float("nan"), dtype=torch.float)
            counts = self._counts(stream, row, sum(map(len, stays)), crops)
            for span, crop, count in zip(spans, crops, counts, strict=True):
                rows = span.tokens.to(shown)
                must = torch.zeros_like(rows, dtype=torch.bool) if stream.protected is None else stream.protected[row, rows]
                chosen = self._choose(crop, count, must)
                scores[rows] = crop.local.log().to(scores)
                stays.append(rows[chosen])
                becomes.append(self._values(stream, row, span, rows, chosen))
            kept.append(torch.cat(stays))
            values.append(torch.cat(becomes))
            ranked.append(scores[shown])
        return assemble(stream, kept, values if self.merge else None, positions=self.positions, scores=ranked)

    def _look(self, visual: Visual, span: VisualSpan) -> Crop:
        """What decides which of the n tokens of a crop stay."""
        keys = visual.keys(span, self._low).permute(1, 2, 0, 3).flatten(2)  # [gh, gw, H * d], heads concatenated
        real = span.cells >= 0 if span.grid == tuple(span.patches.shape) else torch.ones_like(span.patches, dtype=torch.bool)
        real = real.to(keys.device)
        repeated = torch.zeros_like(keys[..., 0], dtype=torch.float)
        repeated[real] = (repeats(keys[real], self.theta) > self.repeats * int(real.sum())).float()
        redundant = visual.pool(span, repeated) > 1 - 1e-4
        local = visual.pool(span, visual.cls_attention(span, self._low).mean(0))
        deep = visual.pool(span, visual.cls_attention(span, self._deep).mean(0))
        return Crop(1 - float(redundant.float().mean()), local / local.sum(), deep, self._noise(span).to(local))

    def _noise(self, span: VisualSpan) -> Tensor:
        """Gumbel noise for the tokens of a crop, the same in every batch, [n]."""
        if self.draw == "top":
            return torch.zeros(len(span.tokens))
        generator = torch.Generator().manual_seed(self.seed + 7919 * (span.crop + 1) + span.frame)
        return -torch.empty(len(span.tokens)).exponential_(generator=generator).log()

    def _counts(self, stream: Stream, row: int, whole: int, crops: list[Crop]) -> list[int]:
        """Tokens of every crop: drawn ones in addition to the outliers, or including them where a budget was given."""
        sizes = [len(crop.local) for crop in crops]
        if self.budget_from_parameters or not crops:
            return [local_count(crop.density, size, self.least) for crop, size in zip(crops, sizes, strict=True)]
        mean = self.allowance(whole + sum(sizes), len(stream.texts(row)), stream.entry_bytes)
        left = int(mean + 0.5) - whole
        if left < len(crops):
            raise BudgetError(
                f"correlation_guided: views of whole images stay untouched and take {whole} of the {mean:.1f} visual "
                f"tokens that the budget leaves, and {len(crops)} crops need one each; ask for "
                f"keep={(whole + len(crops)) / (whole + sum(sizes)):.4f} or more."
            )
        return spread(left, [crop.density * size for crop, size in zip(crops, sizes, strict=True)], sizes)

    def _choose(self, crop: Crop, count: int, must: Tensor) -> Tensor:
        """Numbers of the tokens that stay, ascending."""
        drawn = crop.local.clamp(min=1e-30).log() + crop.noise  # the largest log p + Gumbel noise: a draw by p
        outliers = iqr_outliers(crop.deep, self.factor)
        if not self.budget_from_parameters:
            first = drawn.max() + 1 + crop.deep.argsort().argsort()
            return choose(torch.where(outliers, first, drawn), count, must)
        stays = outliers | must
        stays[choose(drawn, count)] = True
        return stays.nonzero()[:, 0]

    def _values(self, stream: Stream, row: int, span: VisualSpan, rows: Tensor, chosen: Tensor) -> Tensor:
        if not self.merge or len(chosen) == len(rows):
            return stream.hidden[row, rows[chosen]]
        visual = stream.visual
        keys = visual.pool(span, visual.keys(span, self._low).permute(1, 2, 0, 3).flatten(2))
        dropped = torch.ones_like(rows, dtype=torch.bool)
        dropped[chosen] = False
        x, read = vectors(visual, span)
        mean, _ = folded(x[chosen], x[dropped], nearest(keys[dropped], keys[chosen]))
        return read(mean.to(x)).to(stream.hidden)


@dataclass(frozen=True)
class Crop:
    """What decides which of n tokens stay: `density`; CLS attention in the low layer, summing to 1, and in the deep one, [n]
    each; Gumbel noise [n]."""

    density: float
    local: Tensor
    deep: Tensor
    noise: Tensor


def crops_of(visual: Visual, row: int) -> tuple[list[VisualSpan], list[VisualSpan]]:
    """Views of whole images that have crops, and all other views, of a batch row; views without tokens are left out."""
    whole: list[VisualSpan] = []
    crops: list[VisualSpan] = []
    for modality, image in dict.fromkeys((s.modality, s.image) for s in visual.spans if s.row == row):
        views = [span for span in visual.of(row, image, modality) if len(span.tokens)]
        cut = [span for span in views if span.crop != 0]
        crops += cut or views
        whole += [span for span in views if span.crop == 0] if cut else []
    return whole, crops


def repeats(keys: Tensor, theta: float) -> Tensor:
    """m: for each of keys [N, D] the number of others with a cosine above `theta`, [N]; in blocks of rows."""
    keys = unit(keys)
    counts = []
    for first in range(0, len(keys), BLOCK):
        near = (keys[first : first + BLOCK] @ keys.T).clamp(max=1) > theta
        near.diagonal(first).fill_(False)
        counts.append(near.sum(-1))
    return torch.cat(counts)


def local_count(density: float, size: int, least: int) -> int:
    """n of the paper, at most all of them."""
    return min(size, max(least, math.ceil(density * size - 1e-6)))

"""GlobalCom2: the thumbnail of an image decides how much of every crop stays, and helps decide what (arXiv 2501.05179)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from laconic import checks
from laconic.errors import UnsupportedModelError
from laconic.families.vision import CANVAS, Visual, VisualSpan, vision_family_of
from laconic.method import register
from laconic.ops.similarity import cosine
from laconic.stream.assemble import assemble, choose
from laconic.stream.contract import POLICIES, Cut, Policy, Stream, TokenMethod

ScoredView = tuple[Tensor, Tensor, float]
"""Tokens [n] of a thumbnail, a crop or a frame, their scores [n], and the share of them that stays."""


@register(
    "globalcom2",
    site="encoder",
    modality="image, video",
    mechanism="pruning",
    principle="attention",
    source="arXiv 2501.05179",
    query_aware=False,
    inferred="videos, encoders without CLS, and tau for softmax scores (not in the release); resampled canvases by regions",
)
@dataclass(kw_only=True)
class GlobalCom2(TokenMethod):
    """Crops that are salient in the thumbnail keep more tokens; a token is scored in its crop and in the thumbnail.

    With saliency maps s_0 of the thumbnail and s_j of n crops, and S_j the sum of s_0 over the area of crop j:

        r_j = min(1, R * (1 + softmax(S / tau)_j - 1 / n))
        score of a token of crop j = (1 - alpha) * s_j / ||s_j|| + alpha * s_0 resized to the canvas / || . ||

    The best int(R * N) tokens of the thumbnail and int(r_j * n_j) of crop j stay, at least one each, and all line ends.
    Where a model has no CLS token, a patch is salient if it is unlike the mean of its view. Frames of a video take the place
    of crops, and the mean over the frames that of the thumbnail.

    Args:
        keep: R, also for thumbnails and for images with a single view. What a crop cannot use above r_j = 1 is not given to
            others, as published, so more than asked may be removed when R is large.
        saliency: ``"logits"``: q k of the CLS token in the last encoder layer before the softmax, mean over heads (as
            released); ``"softmax"``: after it (as in the paper); ``"cosine"``: -cos(patch, mean patch) of the encoder's
            output; None: logits, or cosine in encoders without CLS.
        tau: temperature of the crops' shares; None: 10, or 0.1 for softmax scores, whose sums are below 1.
        alpha: weight of the thumbnail in a token's score.
        single: images with a single view keep their most salient tokens (``"top"``) or everything (``"all"``).
        positions: ``"renumber"``: positions are renumbered without gaps, as in the release; ``"gather"``: tokens keep
            theirs.

    Raises:
        UnsupportedModelError: CLS scores are asked for and the encoder has no CLS token, or the places of crops are unknown.
    """

    saliency: Literal["logits", "softmax", "cosine"] | None = None
    tau: float | None = None
    alpha: float = 0.5
    single: Literal["top", "all"] = "top"
    positions: Policy = "renumber"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, "saliency", "logits", "softmax", "cosine", None)
        if self.tau is not None and self.tau <= 0:
            raise ValueError(f"globalcom2: tau={self.tau} must be above 0.")
        checks.between(self, "alpha")
        checks.one_of(self, "single", "top", "all")
        checks.one_of(self, "positions", *POLICIES)
        self._saliency = self.saliency or "logits"

    def attach(self, model: PreTrainedModel) -> None:
        cls = vision_family_of(model).has_cls(model)
        if self.saliency in ("logits", "softmax") and not cls:
            raise UnsupportedModelError(
                f"globalcom2: saliency={self.saliency!r} reads the CLS token, and the vision encoder of this "
                f"{type(model).__name__} has none; use saliency='cosine' (or None)."
            )
        self._saliency = self.saliency or ("logits" if cls else "cosine")

    def encoder_layers(self, depth: int) -> tuple[int, ...]:
        return () if self._saliency == "cosine" else (-1,)

    def cut(self, stream: Stream) -> Cut | None:
        kept, ranked = [], []
        for row in range(len(stream.hidden)):
            shown = stream.images(row)
            share = self.allowance(len(shown), len(stream.texts(row)), stream.entry_bytes) / max(1, len(shown))
            scores, stays = torch.full_like(stream.hidden[row, :, 0], float("nan"), dtype=torch.float), []
            for tokens, score, part in self._pieces(stream.visual, row, share) if share < 1 else ():
                rows = tokens.to(shown)
                must = None if stream.protected is None else stream.protected[row, rows]
                scores[rows] = score = score.to(scores)
                stays.append(rows[choose(score, max(1, int(part * len(rows) + 1e-6)), must)])
            kept.append(torch.cat(stays) if stays else shown)
            ranked.append(scores[shown])
        return assemble(stream, kept, positions=self.positions, scores=ranked)

    def _pieces(self, visual: Visual, row: int, share: float) -> Iterator[ScoredView]:
        """Thumbnails, crops and frames of all images of a batch row, without those that have no tokens."""
        for modality, image in dict.fromkeys((s.modality, s.image) for s in visual.spans if s.row == row):
            views = visual.of(row, image, modality)
            if len(views) == 1:
                score = visual.pool(views[0], self._map(visual, views[0]))
                found = [(views[0].tokens, score, share if self.single == "top" else 1.0)]
            elif views[-1].frame > 0:
                found = self._frames(visual, views, share)
            else:
                found = self._crops(visual, views, visual.crop_grid(image, modality), share)
            yield from (piece for piece in found if len(piece[0]))

    def _crops(self, visual: Visual, views: list[VisualSpan], grid: tuple[int, int], share: float) -> list[ScoredView]:
        whole, crops = views[0], views[1:]
        seen = self._map(visual, whole)
        richness = torch.zeros(grid[0] * grid[1], device=seen.device).index_add(
            0, partition(seen.shape, grid).flatten().to(seen.device), seen.flatten()
        )
        parts = ratios(richness, share, self._tau).tolist()
        found: list[ScoredView] = [(whole.tokens, visual.pool(whole, seen), share)]
        for crop, tokens, local, above in self._tiles(visual, whole, crops, grid, seen):
            found.append((tokens, self._holistic(local, above), parts[crop]))
        return found

    def _tiles(
        self, visual: Visual, whole: VisualSpan, crops: list[VisualSpan], grid: tuple[int, int], seen: Tensor
    ) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Number of every crop, its tokens, their scores in the crop's own map and in the thumbnail's, [n] each."""
        if crops[0].crop == CANVAS:
            canvas, area = crops[0], whole.patches.numel()
            numbers = canvas.patches // area - int(whole.patches[0, 0]) // area - 1
            local = visual.pool(canvas, self._map(visual, canvas, numbers))
            above = visual.pool(canvas, resize(seen, canvas.patches.shape))
            region = F.interpolate(numbers[None, None].float(), canvas.grid, mode="nearest-exact")[0, 0].flatten().long()
            for crop in range(grid[0] * grid[1]):
                yield crop, canvas.tokens[region == crop], local[region == crop], above[region == crop]
            return
        rows = [int((span.cells >= 0).any(1).sum()) for span in crops]
        cols = [int((span.cells >= 0).any(0).sum()) for span in crops]
        heights = [max(rows[r * grid[1] : (r + 1) * grid[1]]) for r in range(grid[0])]
        widths = [max(cols[c :: grid[1]]) for c in range(grid[1])]
        above = resize(seen, (sum(heights), sum(widths)))
        for number, span in enumerate(crops):
            r, c = divmod(number, grid[1])
            part = above[sum(heights[:r]) :, sum(widths[:c]) :][: rows[number], : cols[number]]
            yield number, span.tokens, visual.pool(span, self._map(visual, span)), part.flatten()

    def _frames(self, visual: Visual, frames: list[VisualSpan], share: float) -> list[ScoredView]:
        if self._saliency == "cosine":
            x = torch.stack([visual.patches(span).float() for span in frames])  # [frames, gh, gw, C]
            richness = unlike_mean(x).sum((1, 2))
            seen = unlike_mean(x.mean(0))
        else:
            maps = torch.stack([self._map(visual, span) for span in frames])
            richness, seen = maps.sum((1, 2)), maps.mean(0)
        parts = ratios(richness, share, self._tau).tolist()
        own = [visual.pool(span, self._map(visual, span)) for span in frames]
        above = [visual.pool(span, seen) for span in frames]
        return [(s.tokens, self._holistic(a, b), part) for s, a, b, part in zip(frames, own, above, parts, strict=True)]

    def _map(self, visual: Visual, span: VisualSpan, views: Tensor | None = None) -> Tensor:
        """Saliency of the patches of a span, [gh, gw]; `views`: the view that each belongs to, where there are several."""
        if self._saliency != "cosine":
            return visual.cls_attention(span, logits=self._saliency == "logits").mean(0)
        x = visual.patches(span).float()
        if views is None:
            return unlike_mean(x)
        out = x.new_zeros(x.shape[:2])
        for view in views.unique():
            out[views == view] = unlike_mean(x[views == view])
        return out

    def _holistic(self, local: Tensor, above: Tensor) -> Tensor:
        return (1 - self.alpha) * F.normalize(local, dim=0) + self.alpha * F.normalize(above, dim=0)

    @property
    def _tau(self) -> float:
        return self.tau or (0.1 if self._saliency == "softmax" else 10.0)


def partition(shape: tuple[int, ...], grid: tuple[int, int]) -> Tensor:
    """The crop, numbered row by row, in which each cell of a thumbnail lies; the last ones take the remainder, [g, g]."""
    row, col = (
        (torch.arange(cells) // max(1, cells // parts)).clamp(max=parts - 1)
        for cells, parts in zip(shape, grid, strict=True)
    )
    return row[:, None] * grid[1] + col


def ratios(richness: Tensor, share: float, tau: float) -> Tensor:
    """Shares of crops from their richness [n], with mean `share` as long as none is clipped to 1."""
    weights = ((richness - richness.max()) / tau).exp()
    return (share * (1 + weights / (weights.sum() + 1e-8) - 1 / len(richness))).clamp(max=1)


def resize(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A map resized bilinearly to [h, w]."""
    return F.interpolate(x[None, None], tuple(shape), mode="bilinear", align_corners=False)[0, 0]


def unlike_mean(x: Tensor) -> Tensor:
    """Negative cosine of every vector of x [..., C] to their mean, [...]."""
    return -cosine(x.reshape(-1, x.shape[-1]), x.reshape(-1, x.shape[-1]).mean(0)[None])[:, 0].view(x.shape[:-1])

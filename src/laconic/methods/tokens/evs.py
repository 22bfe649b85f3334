"""EVS, Efficient Video Sampling: a token that looks like the token at its place one frame before goes (arXiv 2510.14624)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from laconic import checks
from laconic.errors import BudgetError
from laconic.method import register
from laconic.ops.similarity import unit
from laconic.stream.assemble import assemble, choose
from laconic.stream.clips import FRAMES, Clip, Frames, clip_counts, clips, ranked
from laconic.stream.contract import POLICIES, Cut, Policy, Stream, TokenMethod
from laconic.stream.equal_budget import tokens_after

FIRST = 255.0
"""The dissimilarity of a first frame, above every cosine's."""


@register(
    "evs",
    site="tokens",
    modality="video",
    mechanism="pruning",
    principle="similarity",
    source="arXiv 2510.14624",
    query_aware=False,
    inferred="an exact budget, spread over several videos in proportion; text keeps the positions that the model gave it",
)
@dataclass(kw_only=True)
class EVS(TokenMethod):
    """Keep the first frame of a video, and of all later frames the tokens that differ most from the frame before.

    d[t, i] = 1 - cos(x[t, i], x[t - 1, i]) of the features at the decoder's input, over the same place i of the grid; the
    largest of a whole video stay, so a frame in which nothing changes may keep no token. Nothing is merged. A still image is
    a video of one frame and stays whole.

    Args:
        rate: q, the share of a video's tokens that is removed where no budget is given: max(n, int(T n (1 - q))) of T frames
            of n tokens stay.
        frames: "video", or "images" where the model is given the frames of one video as images (InternVL).
        positions: kept tokens have the positions they had ("gather", as published) or are renumbered.

    Raises:
        BudgetError: the budget is less than the first frames.
    """

    rate: float = 0.75
    frames: Frames = "video"
    positions: Policy = "gather"

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.rate < 1:
            raise ValueError(f"evs: rate={self.rate} is the share of tokens to remove; it must be in [0, 1).")
        checks.one_of(self, "frames", *FRAMES)
        checks.one_of(self, "positions", *POLICIES)

    @property
    def neutral(self) -> bool:
        return super().neutral or (self.budget_from_parameters and self.rate == 0)

    def cut(self, stream: Stream) -> Cut | None:
        kept, scores = [], []
        for b in range(len(stream.hidden)):
            found = clips(stream, b, self.frames)
            news = [novelty(stream.hidden[b, clip.rows]) for clip in found]
            stays = [stream.images(b)[:0]]
            for clip, new, count in zip(found, news, self._counts(stream, b, found), strict=True):
                must = clip.must.clone()
                must[0] = True
                stays.append(clip.rows.flatten()[choose(new.flatten(), count, must.flatten())])
            kept.append(torch.cat(stays))
            scores.append(ranked(stream, b, found, news))
        return assemble(stream, kept, positions=self.positions, scores=scores)

    def _counts(self, stream: Stream, row: int, found: Sequence[Clip]) -> list[int]:
        """Tokens of every clip that stay."""
        shapes = [tuple(clip.rows.shape) for clip in found]
        if self.budget_from_parameters:
            return [max(n, int(t * n * (1 - self.rate))) for t, n in shapes]
        least, size = sum(n for _, n in shapes), sum(t * n for t, n in shapes)
        if tokens_after(self, stream, row) < least:
            raise BudgetError(
                f"evs: the first frame of every video stays whole, here {least} of {size} visual tokens, so {self.budget} "
                f"cannot be reached; ask for keep={math.ceil(1e4 * least / size) / 1e4} or more. (A still image is a "
                "video of one frame; frames='images' takes all images as the frames of one video.)"
            )
        return clip_counts(self, stream, row, found, [n for _, n in shapes])


def novelty(x: Tensor) -> Tensor:
    """Features x [T, n, D] of a video -> how much each differs from that at its place in the frame before, [T, n]."""
    x = unit(x)
    return torch.cat([x.new_full(x.shape[:2], FIRST)[:1], 1 - (x[1:] * x[:-1]).sum(-1)])

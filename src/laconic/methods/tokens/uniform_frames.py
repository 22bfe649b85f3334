"""Frames at equal distances: the baseline of every method for videos, which is to sample fewer frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from laconic import checks
from laconic.errors import BudgetError
from laconic.method import register
from laconic.stream.assemble import assemble
from laconic.stream.clips import FRAMES, Clip, Frames, clip_counts, clips
from laconic.stream.contract import POLICIES, Cut, Policy, Stream, TokenMethod


@register("uniform_frames", site="tokens", modality="video", mechanism="pruning", source="baseline", query_aware=False)
@dataclass(kw_only=True)
class UniformFrames(TokenMethod):
    """Keep whole frames of every video, at equal distances in the order of time (in their middles, as frames are sampled).

    Where the budget is no whole number of frames, one more frame is kept in part: its tokens at equal distances. Who samples
    fewer frames from the file saves the encoder's work, too. A still image is a video of one frame.

    Args:
        frames: "video", or "images" where the model is given the frames of one video as images (InternVL).
        positions: kept tokens have the positions they had ("gather") or are renumbered, as if no others had been sampled.

    Raises:
        BudgetError: protected tokens lie in frames that go.
    """

    frames: Frames = "video"
    positions: Policy = "renumber"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, "frames", *FRAMES)
        checks.one_of(self, "positions", *POLICIES)

    def cut(self, stream: Stream) -> Cut | None:
        kept = []
        for b in range(len(stream.hidden)):
            found = clips(stream, b, self.frames)
            stays = [stream.images(b)[:0]]
            for clip, count in zip(found, clip_counts(self, stream, b, found), strict=True):
                chosen = evenly_kept(clip, count)
                if clip.must.flatten()[~chosen.flatten()].any():
                    raise BudgetError(
                        "uniform_frames: protected tokens lie in frames that this budget removes; protect nothing, ask for "
                        "more, or use a method that chooses single tokens."
                    )
                stays.append(clip.rows[chosen])
            kept.append(torch.cat(stays))
        return assemble(stream, kept, positions=self.positions)


def evenly_kept(clip: Clip, count: int) -> Tensor:
    """Which `count` tokens of a clip of T frames of n tokens stay, bool [T, n]."""
    t, n = clip.rows.shape
    whole, rest = divmod(count, n)
    chosen = torch.zeros(t, n, dtype=torch.bool, device=clip.rows.device)
    places = middles(t, whole + (rest > 0))
    chosen[places] = True
    if rest:
        part = places[len(places) // 2]
        chosen[part] = False
        chosen[part, middles(n, rest)] = True
    return chosen


def middles(length: int, count: int) -> Tensor:
    """`count` different places of `length` at equal distances: floor((i + 1/2) length / count)."""
    return ((2 * torch.arange(count) + 1) * length) // (2 * count) if count else torch.arange(0)

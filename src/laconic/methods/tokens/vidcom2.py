"""VidCom2: unusual frames keep more of their tokens, and in every frame the unusual tokens stay (arXiv 2505.14454)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from laconic import checks
from laconic.method import register
from laconic.ops.similarity import unit
from laconic.stream.assemble import assemble, choose
from laconic.stream.clips import FRAMES, Frames, clip_counts, clips, ranked
from laconic.stream.contract import POLICIES, Cut, Policy, Stream, TokenMethod

VARIANCES = (0.125, 0.25, 0.5, 1.0, 2.0)


@register(
    "vidcom2",
    site="tokens",
    modality="video",
    mechanism="pruning",
    principle="similarity",
    source="arXiv 2505.14454",
    query_aware=False,
    inferred="ties go to the earlier token; a still image is a video of one frame",
)
@dataclass(kw_only=True)
class VidCom2(TokenMethod):
    """Keep the tokens least like the mean of their video and of their frame, more of them in frames unlike the video.

    Of the features at the decoder's input the half of the channels with the least variance is taken and normalised. With
    K(a, b) the sum of five Gaussian kernels, a token's redundancy is K(x, mean of the video) + K(x, mean of the frame). A
    frame's share of its tokens is R (1 + s - 1 / T), at most 1, with s the softmax over frames of the mean of
    -K(x, mean of the video), divided by the temperature. What rounding and full frames leave of the budget goes to, or comes
    from, the tokens of the whole video next in order.

    Args:
        temperature: of the softmax; at 0.01 nearly all of the extra share goes to one frame.
        channels: share of the channels.
        frames: "video", or "images" where the model is given the frames of one video as images (InternVL).
        positions: "renumber", as in LLaVA models, or "gather", as models with M-RoPE do in any case.
    """

    temperature: float = 0.01
    channels: float = 0.5
    frames: Frames = "video"
    positions: Policy = "renumber"

    default_keep: ClassVar[float | None] = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0 or not 0 < self.channels <= 1:
            raise ValueError(
                f"vidcom2: temperature={self.temperature} must be above 0, and channels={self.channels} in (0, 1]."
            )
        checks.one_of(self, "frames", *FRAMES)
        checks.one_of(self, "positions", *POLICIES)

    def cut(self, stream: Stream) -> Cut | None:
        kept, scores = [], []
        for b in range(len(stream.hidden)):
            found = clips(stream, b, self.frames)
            stays, ranks = [stream.images(b)[:0]], []
            for clip, count in zip(found, clip_counts(self, stream, b, found), strict=True):
                of_video, of_frame = redundancy(stream.hidden[b, clip.rows], self.channels)
                rank = -(of_video + of_frame)
                shares = frame_shares(-of_video.mean(1), count / clip.rows.numel(), self.temperature)
                stays.append(clip.rows.flatten()[kept_of(rank, shares, count, clip.must)])
                ranks.append(rank)
            kept.append(torch.cat(stays))
            scores.append(ranked(stream, b, found, ranks))
        return assemble(stream, kept, positions=self.positions, scores=scores)


def redundancy(x: Tensor, channels: float = 0.5) -> tuple[Tensor, Tensor]:
    """Features x [T, n, D] of a video -> how like the video's mean and how like their frame's mean they are, [T, n] each, in
    (0, 5], fp32."""
    x = x.float()
    variance = x.flatten(0, 1).var(0, correction=0)
    steady = variance.argsort(stable=True)[: max(1, int(channels * x.shape[-1]))]
    x = unit(x[..., steady.sort().values])
    return _kernel(x, x.mean((0, 1))), _kernel(x, x.mean(1, keepdim=True))


def _kernel(x: Tensor, centre: Tensor) -> Tensor:
    """Sum of Gaussian kernels between x [T, n, d] and centres that broadcast to it, [T, n]."""
    square = (x - centre).square().sum(-1)
    return torch.stack([(-square / (2 * variance)).exp() for variance in VARIANCES]).sum(0)


def frame_shares(unique: Tensor, keep: float, temperature: float = 0.01) -> Tensor:
    """How unlike the video its frames are, [T] -> the share of its tokens that each keeps, [T]; `keep` on average."""
    more = ((unique - unique.max()) / temperature).softmax(0)
    return (keep * (1 + more - 1 / len(unique))).clamp(max=1)


def kept_of(rank: Tensor, shares: Tensor, count: int, must: Tensor) -> Tensor:
    """The `count` tokens of a video that stay, as numbers in [T, n] flattened, ascending.

    Every frame takes the best of `rank` [T, n] by its share, at least one. If these are too many, the worst of all go; if
    they are too few, the best of the others come.
    """
    n = rank.shape[1]
    chosen = torch.zeros_like(must)
    for t, number in enumerate((shares * n).round().int().tolist()):
        chosen[t, choose(rank[t], max(1, number, int(must[t].sum())), must[t])] = True
    rank = rank.flatten()
    inside, outside = chosen.flatten().nonzero()[:, 0], (~chosen).flatten().nonzero()[:, 0]
    if len(inside) >= count:
        return inside[choose(rank[inside], count, must.flatten()[inside])]
    return torch.cat([inside, outside[choose(rank[outside], count - len(inside))]]).sort().values

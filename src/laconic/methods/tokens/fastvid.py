"""FastVID: a video cut into scenes, salient tokens of every frame, the rest of a scene merged into density peaks
(arXiv 2503.11187)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from laconic import checks
from laconic.method import register
from laconic.ops.density import peak_scores
from laconic.ops.similarity import cosine, first_best, means, unit
from laconic.stream.assemble import assemble, check_protected, choose
from laconic.stream.clips import FRAMES, Frames, clip_counts, clips, ranked
from laconic.stream.contract import POLICIES, Cut, Policy, Stream, TokenMethod
from laconic.stream.shares import spread

NEIGHBOURS = 4


@register(
    "fastvid",
    site="tokens",
    modality="video",
    mechanism="pruning, merging",
    principle="similarity, attention",
    source="arXiv 2503.11187",
    query_aware=False,
    inferred="saliency without an attention-pooling head as in its Qwen form; an exact budget; no noise in densities",
)
@dataclass(kw_only=True)
class FastVID(TokenMethod):
    """Cut a video where its frames change, keep the salient tokens of every frame, merge the others of a scene into a few.

    Frames are compared by the cosine of their mean features; a scene ends at the `scenes` - 1 least similar pairs and
    wherever the cosine is below `tau`. Of a frame's R tokens R - int(R d) are salient: those to which the mean query of the
    frame pays most attention in the encoder's last layer. The other int(R d) of all frames of a scene are centres in its
    anchor frames, every `step`-th counted from the scene's end. Centres are density peaks among the tokens of their frame
    that are not salient; every token of the scene that is neither salient nor one of these centres joins the most similar
    one, which becomes w centre + (1 - w) mean, with w = max(beta, 1 / (number + 1)).

    Args:
        ratio: r, the share that stays where no budget is given: R = int(r n), at least 1, and what rounding leaves is not
            used, as published. A budget is met exactly: it goes to the anchors.
        scenes, tau, context, step, beta: c, tau, d, p and beta above (the published Qwen2.5-VL form has tau = 0.84).
        frames: "video", or "images" where the model is given the frames of one video as images (InternVL).
        positions: "gather" (as published) or "renumber".
    """

    ratio: float = 0.1
    scenes: int = 8
    tau: float = 0.9
    context: float = 0.4
    step: int = 4
    beta: float = 0.6
    frames: Frames = "video"
    positions: Policy = "gather"

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.ratio <= 1:
            raise ValueError(f"fastvid: ratio={self.ratio} is the share of tokens that stays; it must be in (0, 1].")
        checks.at_least(self, "scenes", 1)
        checks.at_least(self, "step", 1)
        checks.between(self, "context")
        checks.between(self, "beta")
        checks.one_of(self, "frames", *FRAMES)
        checks.one_of(self, "positions", *POLICIES)

    @property
    def neutral(self) -> bool:
        return super().neutral or (self.budget_from_parameters and self.ratio == 1)

    def encoder_layers(self, depth: int) -> tuple[int, ...]:
        return () if self.neutral else (-1,)

    def cut(self, stream: Stream) -> Cut | None:
        merged = torch.full(stream.place.shape, -1, dtype=torch.long, device=stream.place.device)
        kept, values, scores = [], [], []
        for b in range(len(stream.hidden)):
            found = clips(stream, b, self.frames)
            limits = [None] * len(found) if self.budget_from_parameters else clip_counts(self, stream, b, found)
            mixed, stays, ranks = stream.hidden[b].clone(), stream.shown[b].new_zeros(stream.shown.shape[1]), []
            for clip, limit in zip(found, limits, strict=True):
                salience = torch.stack([stream.visual.mean_query_attention(span) for span in clip.spans])
                x, into = self.reduce(stream.hidden[b, clip.rows].float(), salience, limit, clip.must)
                own = into == torch.arange(into.numel(), device=into.device).view(into.shape)
                stays[clip.rows[own]] = True
                mixed[clip.rows[own]] = x[own].to(mixed)
                merged[b, clip.rows] = torch.where(into < 0, -1, clip.rows.flatten()[into.clamp(min=0)])
                ranks.append(salience)
            kept.append(stays.nonzero()[:, 0])
            values.append(mixed[kept[-1]])
            scores.append(ranked(stream, b, found, ranks))
        rows = torch.arange(merged.shape[1], device=merged.device)
        merged = torch.where(stream.shown, merged, rows)
        return assemble(stream, kept, values, positions=self.positions, merged=merged, scores=scores)

    def reduce(self, x: Tensor, salience: Tensor, limit: int | None, must: Tensor) -> tuple[Tensor, Tensor]:
        """What becomes of a video.

        Args:
            x: features [T, n, D] fp32; salience: [T, n]; limit: tokens that stay, None: as `ratio` says; must: [T, n].

        Returns:
            features [T, n, D] in which centres have what was merged into them, and the token, counted over [T, n], into
            which each went: its own number where it stays, -1 where it was dropped, [T, n]. A token that joined a centre in
            several anchor frames is shown with the most similar one.
        """
        t, n, _ = x.shape
        mean = x.mean(1)
        lengths = scenes((unit(mean[1:]) * unit(mean[:-1])).sum(-1), self.scenes, self.tau)
        salients, centres = self._numbers(n, lengths, limit, must)
        flat, out = x.flatten(0, 1), x.flatten(0, 1).clone()
        into = torch.full((t * n,), -1, dtype=torch.long, device=x.device)
        number = torch.arange(t * n, device=x.device).view(t, n)
        salient = torch.zeros_like(must)
        for frame, count in enumerate(salients):
            salient[frame, choose(salience[frame], count, must[frame])] = True
        into[number[salient]] = number[salient]
        closest = x.new_full((t * n,), -2.0)
        for scene in _ranges(lengths):
            others = number[scene.start : scene.stop][~salient[scene.start : scene.stop]]
            for frame in anchors(scene, self.step):
                free = number[frame][~salient[frame]]
                if not centres[frame]:
                    continue
                peaks = free[choose(peak_scores(flat[free], NEIGHBOURS)[0], centres[frame])]
                joins = others[~torch.isin(others, peaks)]
                similar = cosine(flat[joins], flat[peaks])
                to = first_best(similar)
                average, total = means(flat[joins], to, len(peaks))
                own = (1 / (total + 1)).clamp(min=self.beta)[:, None]
                out[peaks] = own * flat[peaks] + (1 - own) * average
                best = similar.gather(1, to[:, None])[:, 0]
                better = (best > closest[joins]) & (into[joins] != joins)
                into[joins[better]], closest[joins[better]] = peaks[to[better]], best[better]
                into[peaks] = peaks
        return out.view_as(x), into.view(t, n)

    def _numbers(self, n: int, lengths: Sequence[int], limit: int | None, must: Tensor) -> tuple[list[int], list[int]]:
        """Salient tokens and centres of every frame; frames that are no anchors have no centre."""
        t = sum(lengths)
        per_frame = max(1, int(n * self.ratio)) if limit is None else limit // t
        context = int(per_frame * self.context)
        salient = [per_frame - context] * t
        if limit is not None:
            check_protected(int(must.sum()), limit)
        if bool(must.any()):
            least = must.sum(1).tolist()
            salient = spread(max(sum(salient), sum(least)), [1] * t, [n] * t, least)
        shares: dict[int, float] = {}
        for scene in _ranges(lengths):
            chosen = anchors(scene, self.step)
            shares |= {frame: len(scene) / len(chosen) for frame in chosen}
        centres = [0] * t
        if limit is None:
            for frame, share in shares.items():
                centres[frame] = min(int(context * share + 1e-9), n - salient[frame])
        else:
            most = [n - salient[frame] for frame in shares]
            spare = limit - sum(salient)
            counts = spread(spare, list(shares.values()), most, [0] * len(most))
            for frame, count in zip(shares, counts, strict=True):
                centres[frame] = count
            salient = spread(sum(salient) + spare - sum(counts), salient, [n - c for c in centres], salient)
        return salient, centres


def scenes(similar: Tensor, count: int, tau: float) -> list[int]:
    """Cosines of frames t and t + 1, [T - 1] -> the lengths of the scenes. One ends at each of the `count` - 1 smallest, of
    equal ones the first, and at all below `tau`."""
    ends = similar < tau
    ends[choose(-similar, min(count - 1, len(similar)))] = True
    bounds = [0, *(ends.nonzero()[:, 0] + 1).tolist(), len(similar) + 1]
    return [stop - start for start, stop in pairwise(bounds)]


def anchors(scene: range, step: int) -> list[int]:
    """The frames of a scene whose distance from its last one is a multiple of `step`, ascending."""
    return list(scene[::-1][::step])[::-1]


def _ranges(lengths: Sequence[int]) -> list[range]:
    """The frames of every scene."""
    bounds = [0]
    for length in lengths:
        bounds.append(bounds[-1] + length)
    return [range(start, stop) for start, stop in pairwise(bounds)]

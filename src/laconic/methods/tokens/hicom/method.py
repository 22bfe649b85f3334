"""HICom: every block of patches becomes one token by attention whose query is the question, and a few learned queries look
at the whole image or clip (arXiv 2503.16036)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic import checks
from laconic.artifact import Artifact
from laconic.errors import BudgetError, UnsupportedModelError
from laconic.families.vision import VisualSpan
from laconic.method import register
from laconic.methods.tokens.hicom import network
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.grids import grid_rows, views
from laconic.stream.readout import single_patches
from laconic.stream.resample import resampled
from laconic.stream.trained_sizes import sized


@register(
    "hicom",
    site="tokens",
    modality="image, video",
    mechanism="resampling",
    principle="query",
    source="arXiv 2503.16036",
    query_aware=True,
    training="trained",
    inferred="a frozen decoder; the mean embedding of the prompt's text and a trained projection of it in place of an "
    "aligned text tower; one training for several block sizes; learned queries begin as noise",
)
@dataclass(kw_only=True)
class HICom(TokenMethod):
    """One token for each block of patches, pooled by what the question asks, then a few tokens of the whole.

    With V_g the encoder features of a block g, K_g an adapter of them, C_p the mean embedding of the prompt's text:

        Z_l[g] = softmax(MLP(C_p) . K_g^T / sqrt(C)) V_g
        q = LN(L) (1 + scale) + shift, (scale, shift) a linear map of C_p;   Z_g = q + attention(q, V + position, V)

    The decoder reads the readouts of Z_l in raster order and of Z_g, at renumbered positions. Both readouts begin as the
    model's projector and are trained, the decoder is not.

    Args:
        block: patches along each side of a block. None: by the budget, the smallest of those trained that fits it; without
            one the largest of those trained.
        frames: images of a block in time. 1: every image by itself; above, all images of a sequence are frames of one clip.
        artifact: what `laconic fit hicom` wrote: a file, a shipped name, or a Hub id. None takes the one shipped for these
            weights.

    Raises:
        ArtifactError: none for this model.
        BudgetError: a budget below what the largest block makes, or both a budget and block=.
        UnsupportedModelError: a model that merges or resamples patches before the decoder, or frames of several sizes.
    """

    block: int | None = None
    frames: int = 1
    artifact: str | None = None

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.at_least(self, "frames", 1)
        if self.block is not None:
            checks.at_least(self, "block", 1)
            if not self.budget_from_parameters:
                raise BudgetError(f"hicom: {self.budget} and block={self.block}: give one of them.")

    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral:
            return
        artifact = Artifact.find(self.name, model, self.artifact)
        self._net = network.load(artifact, model).to(model.device)
        self._blocks = sorted(map(int, artifact.data["blocks"]))
        self._learned = int(artifact.data["learned"])

    def cut(self, stream: Stream) -> Cut | None:
        return resampled(stream, self.name, partial(self._made, stream), order="given")

    def _made(self, stream: Stream, row: int) -> Iterator[tuple[Tensor, Tensor]]:
        """For every clip of a batch row the rows of the stream that carry its tokens, and the tokens."""
        clips = self._clips(stream, row)
        text = stream.hidden[row, stream.texts(row)].float().mean(0)
        for spans, block in zip(clips, self._sized(stream, row, clips), strict=True):
            patches = torch.stack([single_patches(stream, span, self.name) for span in spans])
            yield self._carriers(stream, spans, block), self._net(patches[None], text[None], (self.frames, block, block))[0]

    def _clips(self, stream: Stream, row: int) -> list[list[VisualSpan]]:
        """The views of a batch row that are compressed together: each alone, or all as frames of a clip."""
        found = views(stream, row)
        if self.frames == 1 or not found:
            return [[span] for span in found]
        if len(shapes := {span.grid for span in found}) > 1:
            raise UnsupportedModelError(f"hicom: frames of one clip must be of one size, and these are {sorted(shapes)}.")
        return [found]

    def _count(self, spans: list[VisualSpan], block: int) -> int:
        return network.count((len(spans), *spans[0].grid), (self.frames, block, block)) + self._learned

    def _sized(self, stream: Stream, row: int, clips: list[list[VisualSpan]]) -> list[int]:
        """The block size of every clip of a batch row."""
        if self.budget_from_parameters:
            return [self.block or self._blocks[-1] for _ in clips]
        totals = [sum(span.grid[0] * span.grid[1] for span in spans) for spans in clips]
        counts = [{block: self._count(spans, block) for block in self._blocks} for spans in clips]
        return sized(self, stream, row, totals, counts)

    def _carriers(self, stream: Stream, spans: list[VisualSpan], block: int) -> Tensor:
        """Rows of the stream that carry the tokens: for those of each block in time the first ones of its first frame, for
        the global ones the last of the clip.

        Raises:
            BudgetError: more tokens than there are patches.
        """
        rows = [grid_rows(stream, span).flatten() for span in spans]
        each = self._count(spans[:1], block) - self._learned
        first = [int(frame[0]) for frame in network.groups(len(rows), self.frames)]
        total = sum(map(len, rows))
        if len(first) * each + self._learned > total:
            raise BudgetError(f"hicom: block={block} makes more tokens than the {total} that there are; give a larger one.")
        last = torch.cat(rows)[total - self._learned :]
        return torch.cat([*(rows[frame][:each] for frame in first), last])

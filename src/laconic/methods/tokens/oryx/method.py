"""Oryx: regions of patches become one token each by attention of their mean over their members, with one set of weights for
all sizes of regions (arXiv 2409.12961)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from laconic import checks
from laconic.artifact import Artifact
from laconic.errors import BudgetError, UnsupportedModelError
from laconic.method import register
from laconic.methods.tokens.oryx import network
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.grids import grid_rows, middles, views
from laconic.stream.readout import single_patches
from laconic.stream.resample import resampled
from laconic.stream.trained_sizes import sized


@register(
    "oryx",
    site="tokens",
    modality="image, video",
    mechanism="resampling",
    principle="transformation",
    source="arXiv 2409.12961",
    query_aware=False,
    training="trained",
    inferred="a frozen encoder of one resolution and a frozen decoder, no tokens between rows and frames, the query map "
    "begins at zero",
)
@dataclass(kw_only=True)
class Oryx(TokenMethod):
    """One token for each r x r region of patches, the same weights for every r.

    With f [r^2, C] the encoder features of a region and p their mean:

        a = softmax(W_q p . (W_k f)^T / sqrt(d));   token = projector(p + a f)

    Values are not projected, so r = 1 gives projector(2 f): the projector begins as the model's own with half of its first
    weights, and all ratios share it. The encoder runs at the resolution of its model; positions are renumbered.

    Args:
        region: r. None: by the budget, the smallest of those trained that fits it; without one the largest of those trained.
        artifact: what `laconic fit oryx` wrote: a file, a shipped name, or a Hub id. None takes the one shipped for these
            weights.

    Raises:
        ArtifactError: none for this model.
        BudgetError: a budget below what the largest region makes, or both a budget and region=.
        UnsupportedModelError: a view that r does not divide, or a model that merges or resamples patches.
    """

    region: int | None = None
    artifact: str | None = None

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.region is not None:
            checks.whole(self, "region", 1)
            if not self.budget_from_parameters:
                raise BudgetError(f"oryx: {self.budget} and region={self.region}: give one of them.")

    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral:
            return
        artifact = Artifact.find(self.name, model, self.artifact)
        self._net = network.load(artifact, model).to(model.device)
        self._regions = sorted(map(int, artifact.data["regions"]))

    def cut(self, stream: Stream) -> Cut | None:
        return resampled(stream, self.name, partial(self._made, stream))

    def _made(self, stream: Stream, row: int) -> Iterator[tuple[Tensor, Tensor]]:
        """For every view of a batch row the rows of the stream that carry its tokens, those in the middle of each region,
        and the tokens."""
        spans = views(stream, row)
        grids = [grid_rows(stream, span) for span in spans]
        for span, grid, side in zip(spans, grids, self._sides(stream, row, grids), strict=True):
            across, down = (middles(n, n // side).to(grid) for n in grid.shape)
            yield grid[across][:, down].flatten(), self._net(single_patches(stream, span, self.name)[None], side)[0]

    def _sides(self, stream: Stream, row: int, grids: list[Tensor]) -> list[int]:
        """r for every view of a batch row.

        Raises:
            UnsupportedModelError: no r that was trained, or not the one asked for, divides a view.
        """
        wanted = self._regions if self.region is None else [self.region]
        counts = []
        for grid in grids:
            rows, cols = grid.shape
            counts.append({r: grid.numel() // r**2 for r in wanted if rows % r == 0 and cols % r == 0})
            if not counts[-1]:
                raise UnsupportedModelError(
                    f"oryx: a view has {rows} x {cols} visual tokens, which regions of {' or '.join(map(str, wanted))} a "
                    "side do not divide; give another region=."
                )
        if self.budget_from_parameters:
            return [max(made) for made in counts]
        return sized(self, stream, row, [grid.numel() for grid in grids], counts)

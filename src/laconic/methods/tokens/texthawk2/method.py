"""TextHawk2: sixteen times fewer tokens in two steps, a resampler of several depths of the encoder and neighbours joined in
reading order (arXiv 2410.05261)."""

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
from laconic.families.vision import VisualSpan
from laconic.method import register
from laconic.methods.tokens.texthawk2 import network
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.grids import grid_rows, views
from laconic.stream.readout import single_patches
from laconic.stream.resample import resampled
from laconic.stream.trained_sizes import refuse_larger, sized


@register(
    "texthawk2",
    site="tokens",
    modality="image",
    mechanism="resampling, concatenation",
    principle="transformation",
    source="arXiv 2410.05261",
    query_aware=False,
    training="trained",
    inferred="a frozen encoder and decoder, views as the model cuts them; queries begin as averages and the last map as the "
    "projector; heads, norms, radius of the codes; one training for several strides",
)
@dataclass(kw_only=True)
class TextHawk2(TokenMethod):
    """Queries proposed by the image gather detail, one for each 2 x 2 patches; four of them in a line become one token.

    With stages x_1 .. x_4 of the encoder, and codes of places that any grid has:

        Q = W maxpool(MLP(x_4));   Q += attention(Q + place, x_i + place, x_i), MLP, by turns from deep stages to shallow
        token = projector([Q_1; Q_2; Q_3; Q_4]), Q_1 .. Q_4 neighbours in reading order

    The two steps lose different things, so letters should stay legible at 16 times fewer tokens;
    docs/systems/texthawk2 says whether they do. Positions are renumbered.

    Args:
        pool: patches along each side for one query. None: by the budget, the smallest of those trained that fits it; without
            one the largest of those trained.
        artifact: what `laconic fit texthawk2` wrote: a file, a shipped name, or a Hub id. None takes the one shipped for
            these weights.

    Raises:
        ArtifactError: none for this model.
        BudgetError: a budget below what the largest stride makes, or both a budget and pool=.
        UnsupportedModelError: a view that stride, tile or group does not divide, one larger than those of the training, or a
            model that merges patches or whose encoder does not return its stages.
    """

    pool: int | None = None
    artifact: str | None = None

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pool is not None:
            checks.whole(self, "pool", 1)
            if not self.budget_from_parameters:
                raise BudgetError(f"texthawk2: {self.budget} and pool={self.pool}: give one of them.")

    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral:
            return
        artifact = Artifact.find(self.name, model, self.artifact)
        self._net = network.load(artifact, model).to(model.device)
        data = artifact.data
        self._pools, self._stages = sorted(map(int, data["pools"])), list(map(int, data["stages"]))
        self._tile, self._most = int(data["tile"]), int(data["side"])

    def cut(self, stream: Stream) -> Cut | None:
        return resampled(stream, self.name, partial(self._made, stream))

    def _made(self, stream: Stream, row: int) -> Iterator[tuple[Tensor, Tensor]]:
        """For every view of a batch row the rows of the stream that carry its tokens, the first ones, and the tokens."""
        spans = views(stream, row)
        grids = [grid_rows(stream, span) for span in spans]
        for span, grid, pool in zip(spans, grids, self._strides(stream, row, grids), strict=True):
            tokens = self._net(self._read(stream, span), pool, self._tile)[0]
            yield grid.flatten()[: len(tokens)].sort().values, tokens

    def _read(self, stream: Stream, span: VisualSpan) -> list[Tensor]:
        """The stages of a view, [1, H, W, d] each."""
        single_patches(stream, span, self.name)  # refuses models that merge patches
        return [stream.visual.states(span, layer).float()[None] for layer in self._stages]

    def _strides(self, stream: Stream, row: int, grids: list[Tensor]) -> list[int]:
        """Patches a side of a query, for every view of a batch row."""
        wanted = self._pools if self.pool is None else [self.pool]
        counts = []
        for grid in grids:
            refuse_larger(self.name, grid, self._most)
            rows, cols = grid.shape
            made = {pool: network.tokens((rows, cols), pool, self._net.group) for pool in wanted if self._tile % pool == 0}
            counts.append({pool: count for pool, count in made.items() if count})
            if rows % self._tile or cols % self._tile or not counts[-1]:
                raise UnsupportedModelError(
                    f"texthawk2: a view has {rows} x {cols} visual tokens, which tiles of {self._tile} x {self._tile}, "
                    f"queries for {' or '.join(f'{pool} x {pool}' for pool in wanted)} of them and groups of "
                    f"{' x '.join(map(str, self._net.group))} queries do not divide; give another pool=, or fit others."
                )
        if self.budget_from_parameters:
            return [max(made) for made in counts]
        return sized(self, stream, row, [grid.numel() for grid in grids], counts)

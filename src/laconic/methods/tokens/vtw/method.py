"""VTW, visual token withdrawal: from a middle layer on, the decoder runs on text alone (arXiv 2405.05803)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.errors import BudgetError
from laconic.method import register
from laconic.stream.assemble import assemble
from laconic.stream.blocks import at_depth
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.equal_budget import mean_tokens, visual_total


@register(
    "vtw",
    site="tokens",
    modality="image",
    mechanism="pruning",
    source="arXiv 2405.05803",
    query_aware=False,
    training="calibration",
    inferred="K without an artifact: 15 of 32 layers, scaled; a budget gives K = keep * depth, rounded down",
)
@dataclass(kw_only=True)
class VTW(TokenMethod):
    """Before layer K all visual tokens leave, line ends with them; text keeps its positions, with the gap.

    Args:
        layer: K, where no budget is given; None: 15 of 32, scaled to the model's depth. The depth itself changes nothing.
        artifact: take K from what `laconic fit vtw` wrote instead: a file, a shipped name, or a Hub id.
    """

    layer: int | None = None
    artifact: str | None = None

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.artifact is not None and self.layer is not None:
            raise ValueError("vtw: give layer= or artifact=, not both.")
        if self.layer is not None and self.layer < 1:
            raise ValueError(
                f"vtw: layer={self.layer} must be at least 1; before layer 0 nothing would have seen the image."
            )
        self._layer = self.layer

    def attach(self, model: PreTrainedModel) -> None:
        if self.artifact is not None and self.budget_from_parameters:
            self._layer = int(Artifact.find(self.name, model, self.artifact).data["layer"])

    def cuts(self, depth: int) -> Sequence[int]:
        if self.budget_from_parameters:
            layers = [at_depth(15, depth) if self._layer is None else self._layer]
        elif self.keep is not None:
            layers = [self._last(self.keep, depth)]
        else:
            layers = list(range(1, depth))  # a number of tokens becomes a layer only where the prompt is known
        return [layer for layer in layers if layer != depth]

    def cut(self, stream: Stream) -> Cut | None:
        kept, leaving = [], False
        for b in range(len(stream.hidden)):
            visual = stream.visual.mask[b, stream.place[b]]
            at = (visual if stream.valid is None else visual & stream.valid[b]).nonzero()[:, 0]
            if len(at) and stream.layer >= self._k(stream, b):
                at, leaving = at[:0], True
            kept.append(at)
        return assemble(stream, kept, separators=False) if leaving else None

    def _k(self, stream: Stream, row: int) -> int:
        """K of a batch row; with a number of tokens it depends on how many the prompt has."""
        if self.budget_from_parameters or self.keep is not None:
            return stream.layer
        return self._last(mean_tokens(self, stream, row) / max(1, visual_total(stream, row)), stream.depth)

    def _last(self, share: float, depth: int) -> int:
        """K for a share of the visual tokens, mean over layers."""
        layer = int(share * depth + 1e-6)
        if layer < 1:
            raise BudgetError(
                f"vtw: all visual tokens run through at least one of {depth} layers, so the share {share:.4f} cannot be "
                f"reached; ask for keep={1 / depth:.4f} or more."
            )
        return layer

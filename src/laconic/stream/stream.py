"""The stream as methods see it before a decoder layer, and what they say becomes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from laconic.cache.observe import Observation
from laconic.families.vision import Visual

Policy = Literal["gather", "renumber"]
POLICIES: tuple[str, ...] = get_args(Policy)


@dataclass(frozen=True)
class Cut:
    """What a method makes of a stream [B, n, D].

    Attributes:
        keep: rows of the stream that go on, in their new order, [B, m]; -1 at the left of a batch row that keeps fewer than
            its neighbours. Every row keeps its text.
        values: hidden states of the rows that go on, [B, m, D], where tokens were merged; None: as they are.
        positions: "gather": tokens keep their positions, and there are gaps; "renumber": positions are counted again,
            without gaps (models with several positions per token, M-RoPE, gather in any case); or the positions [B, m].
        merged: the row of the stream into which each row went, [B, n]; its own number where nothing was merged into another,
            -1 where it is dropped. For the trace only.
        scores: what the method ranked rows by, [B, n], higher stays; nan where a row has no score. For the trace only.
    """

    keep: Tensor
    values: Tensor | None = None
    positions: Policy | Tensor = "gather"
    merged: Tensor | None = None
    scores: Tensor | None = None


@dataclass
class Stream:
    """The stream before a decoder layer, in a prefill pass that brings images.

    Attributes:
        layer: the layer that runs next, of `depth`; 0 is before the decoder.
        block: that layer's module.
        hidden: hidden states, [B, n, D]; before layer 0 the embeddings, with visual features in their places.
        place: number of every row among the tokens of this pass, [B, n]: what `Visual` calls a token.
        positions: rotary positions, [B, n], or [3 or 4, B, n] with M-RoPE.
        valid: False at padding, [B, n]; None when all rows are real.
        shown: rows that stand for image patches, [B, n]: visual tokens without line ends and other separators.
        protected: rows that no method may remove, [B, n]; None when nothing is protected.
        visual: the images of this pass.
        ids: token ids of this pass, [B, T].
        obs: what layer ``layer - 1`` attended to, where the method observes it; else None.
        entry_bytes: bytes that one token of one sequence costs in the cache, over all layers.
        phases: (cos, sin) of the stream's positions, as layers get them; None before layer 0.
        memo: what the method itself remembers within this pass.
    """

    layer: int
    depth: int
    block: nn.Module
    hidden: Tensor
    place: Tensor
    positions: Tensor
    valid: Tensor | None
    shown: Tensor
    protected: Tensor | None
    visual: Visual
    ids: Tensor
    obs: Observation | None
    entry_bytes: int
    phases: tuple[Tensor, Tensor] | None = None
    memo: dict[Any, Any] = field(default_factory=dict)

    def images(self, row: int) -> Tensor:
        """Rows of the stream that stand for image patches, ascending, [v]."""
        return self.shown[row].nonzero()[:, 0]

    def texts(self, row: int) -> Tensor:
        """Rows of the stream that are neither visual (separators included) nor padding, ascending, [t]."""
        text = ~self.visual.mask[row, self.place[row]]
        return (text if self.valid is None else text & self.valid[row]).nonzero()[:, 0]

    def must(self, row: int) -> Tensor:
        """Which of `images` are protected, bool [v]."""
        at = self.images(row)
        return torch.zeros(len(at), dtype=torch.bool) if self.protected is None else self.protected[row, at]

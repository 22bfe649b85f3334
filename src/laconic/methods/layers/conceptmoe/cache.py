"""What a ConceptMoE model keeps of the tokens it has read: entries per layer, and where its last concept stands."""

from __future__ import annotations

from torch import Tensor
from transformers import Cache, DynamicLayer

from laconic.layers.entries import Entries


class ConceptCache(Cache):
    """The entries of every layer: all tokens in the outer ones, concepts in the others.

    Args:
        layers: of the model.

    Attributes:
        seen: tokens read, padding included.
        key: of the last token, with which the next one is compared, [B, d].
        smooth: output of the concepts so far, smoothed, [B, d]. `concepts`: how many there were, [B].
    """

    def __init__(self, layers: int):
        super().__init__(layer_class_to_replicate=DynamicLayer)
        self.parts: list[Entries | None] = [None] * layers
        self.seen = 0
        self.key: Tensor | None = None
        self.smooth: Tensor | None = None
        self.concepts: Tensor | None = None

    def store(self, layer: int, new: Entries) -> None:
        """Add to the entries of a layer."""
        past = self.parts[layer]
        self.parts[layer] = new if past is None else past.followed_by(new)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen

    def entries(self, layer: int) -> Tensor:
        """How many each row stores in the layer, without padding, [B]."""
        part = self.parts[layer]
        assert part is not None
        return (part.places >= 0).sum(1)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Rows in another order, as beam search asks for it."""
        self.parts = [None if part is None else part.rows(beam_idx) for part in self.parts]
        for name in ("key", "smooth", "concepts"):
            state = getattr(self, name)
            setattr(self, name, None if state is None else state[beam_idx])

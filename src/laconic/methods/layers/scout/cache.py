"""What a SCOUT model keeps of the tokens it has read: per layer the last ones for the mixer, and the checkpoints."""

from __future__ import annotations

from torch import Tensor
from transformers import Cache, DynamicLayer

from laconic.layers.entries import Entries


def checkpoints(entries: Entries, every: int) -> Entries | None:
    """Those at positions ``every - 1, 2 every - 1, ...``, in order, see `Entries.only`."""
    return entries.only((entries.places >= 0) & ((entries.places + 1) % every == 0))


class ScoutCache(Cache):
    """The mixer's entries and the checkpoints of every layer.

    Args:
        layers: of the model.
    """

    def __init__(self, layers: int):
        super().__init__(layer_class_to_replicate=DynamicLayer)
        self.local: list[Entries | None] = [None] * layers
        self.checkpoints: list[Entries | None] = [None] * layers
        self.seen = 0
        """Tokens read, padding included."""

    def store(self, layer: int, near: Entries, far: Entries, window: int, every: int) -> None:
        """Keep the newest `window` entries of the mixer, and of the others the checkpoints."""
        past, known = self.local[layer], self.checkpoints[layer]
        self.local[layer] = (near if past is None else past.followed_by(near)).between(-window)
        fresh = checkpoints(far, every)
        self.checkpoints[layer] = fresh if known is None else known.followed_by(fresh)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen

    def entries(self, layer: int) -> tuple[int, int]:
        """How many the layer stores for its mixer, and for its checkpoints."""
        return tuple(0 if part is None else len(part) for part in (self.local[layer], self.checkpoints[layer]))  # type: ignore[return-value]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Rows in another order, as beam search asks for it."""
        for parts in (self.local, self.checkpoints):
            parts[:] = [None if part is None else part.rows(beam_idx) for part in parts]

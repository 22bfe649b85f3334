"""What a SCOUT model keeps of the tokens it has read: per layer the last ones for the mixer, and the checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache, DynamicLayer

NOWHERE = -1
"""The position of padding."""


@dataclass
class Entries:
    """Keys and values [B, H, n, D] and the position of each [B, n]; `NOWHERE` where a row has none."""

    keys: Tensor
    values: Tensor
    places: Tensor

    def __len__(self) -> int:
        return self.places.shape[1]

    def followed_by(self, other: Entries | None) -> Entries:
        """These entries, then those of `other`."""
        if other is None:
            return self
        pairs = ((self.keys, other.keys, 2), (self.values, other.values, 2), (self.places, other.places, 1))
        return Entries(*(torch.cat([a, b], dim) for a, b, dim in pairs))

    def between(self, start: int, stop: int | None = None) -> Entries:
        """Those from `start` on, up to `stop`."""
        return Entries(self.keys[:, :, start:stop], self.values[:, :, start:stop], self.places[:, start:stop])

    def rows(self, numbers: Tensor) -> Entries:
        """Those of some rows of the batch."""
        return Entries(self.keys[numbers], self.values[numbers], self.places[numbers])

    def checkpoints(self, every: int) -> Entries | None:
        """Those at positions ``every - 1, 2 every - 1, ...``, in order; rows with fewer than others end with padding. None
        where no row has one."""
        wanted = (self.places >= 0) & ((self.places + 1) % every == 0)
        count = int(wanted.sum(1).max())
        if not count:
            return None
        order = (~wanted).to(torch.int8).argsort(dim=1, stable=True)[:, :count]
        at = order[:, None, :, None].expand(-1, self.keys.shape[1], -1, self.keys.shape[3])
        places = self.places.gather(1, order).masked_fill(~wanted.gather(1, order), NOWHERE)
        return Entries(self.keys.gather(2, at), self.values.gather(2, at), places)


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
        fresh = far.checkpoints(every)
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

"""Keys and values that an architecture of the shelf stores, with the position of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NOWHERE = -1
"""The position of padding."""


def in_front(wanted: Tensor) -> Tensor:
    """Numbers of the `wanted` [B, n] of every row in order, [B, m]; rows with fewer than others end with unwanted ones."""
    return (~wanted).to(torch.int8).argsort(dim=1, stable=True)[:, : int(wanted.sum(1).max())]


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

    def only(self, wanted: Tensor) -> Entries | None:
        """The `wanted` ones [B, n], in order; rows with fewer than others end with padding. None where no row has one."""
        order = in_front(wanted)
        if not order.shape[1]:
            return None
        at = order[:, None, :, None].expand(-1, self.keys.shape[1], -1, self.keys.shape[3])
        places = self.places.gather(1, order).masked_fill(~wanted.gather(1, order), NOWHERE)
        return Entries(self.keys.gather(2, at), self.values.gather(2, at), places)


def weighed(scores: Tensor, seen: Tensor) -> Tensor:
    """Softmax in fp32 of scores [B, H, T, n] over the keys that are seen; all zero for padding, which sees nothing."""
    return scores.float().masked_fill(~seen, float("-inf")).softmax(-1).nan_to_num().to(scores.dtype)

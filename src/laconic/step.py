"""One forward pass of the model, as the seams see it: which tokens run, at which positions, which are real."""

from __future__ import annotations

from dataclasses import dataclass

import torch


def gather(x: torch.Tensor, index: torch.Tensor, dim: int) -> torch.Tensor:
    """Rows `index` [B, m] of `x` along `dim`; dim 0 of `x` is the batch, or 1 and then broadcast."""
    dim = dim % x.ndim
    if x.shape[0] == 1 and index.shape[0] > 1:
        x = x.expand(index.shape[0], *x.shape[1:])
    view = [1] * x.ndim
    view[0], view[dim] = index.shape
    target = list(x.shape)
    target[dim] = index.shape[1]
    return x.gather(dim, index.view(view).expand(target))


@dataclass
class Step:
    """The stream of one forward pass. A stream method shortens it on the way through the layers.

    Attributes:
        start: tokens that the cache had seen before.
        length: tokens fed to the model in this pass.
        position_ids: RoPE positions of the stream's tokens, [B or 1, n].
        index: token index of every position of the stream, [B, n]; None while it is ``start .. start + length``.
        valid: False at padding, [B, n]; None when all tokens are real.
        real: real tokens seen by each sequence including this pass, one int per batch row.
        kept: positions of the pass that are still in the stream, [B, n]; None while all are.
        hold: keep every new entry, whatever the methods say.
    """

    start: int
    length: int
    position_ids: torch.Tensor
    real: list[int]
    valid: torch.Tensor | None = None
    index: torch.Tensor | None = None
    kept: torch.Tensor | None = None
    hold: bool = False

    @property
    def prefill(self) -> bool:
        """A pass over more than one token, or the first one: methods may compress after it."""
        return self.length > 1 or self.start == 0

    def token_index(self, batch: int) -> torch.Tensor:
        """Token index of the stream's positions, int32 [B, n]."""
        if self.index is not None:
            return self.index
        device = self.position_ids.device
        return torch.arange(self.start, self.start + self.length, dtype=torch.int32, device=device).expand(batch, -1)

    def reduce(self, keep: torch.Tensor) -> None:
        """Shorten the stream to the positions `keep` [B, m] (sorted), for all later layers."""
        self.index = self.token_index(keep.shape[0]).gather(1, keep)
        self.position_ids = gather(self.position_ids, keep, -1)
        if self.valid is not None:
            self.valid = self.valid.gather(1, keep)

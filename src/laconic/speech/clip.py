"""One sound as a method sees it, whichever model hears it; padding is gone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Clip:
    """The audio tokens of one sound.

    Attributes:
        tokens: as the decoder is going to read them, [n, D].
        seconds: of sound in each.
        energy: how loud each is, in the feature extractor's units, fp32 [n].
        count: how many may stay; None where the method's own parameters decide.
        must: which of them have to stay, bool [n].
        question: embeddings of the prompt's words, [L, D]; None where a model reads no prompt.
        block: the decoder's first layer; None likewise.
    """

    tokens: Tensor
    seconds: float
    energy: Tensor
    count: int | None
    must: Tensor
    question: Tensor | None = None
    block: nn.Module | None = None

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class LayerView:
    """The sound tokens of one window inside an encoder layer, between its attention and its feed-forward network.

    Attributes:
        layer: which one, of `depth`.
        queries, keys: of its attention, [H, n, d]; `scale` of its logits.
        count: how many tokens are to go on; None where the method's own parameters decide.
    """

    layer: int
    depth: int
    queries: Tensor
    keys: Tensor
    scale: float
    count: int | None


@dataclass(frozen=True)
class Shorter:
    """What becomes of n tokens inside an encoder.

    Attributes:
        to: the token that each becomes part of, in 0 .. count - 1; -1 where it is dropped, [n]. No token is left without
            one that becomes it.
    """

    to: Tensor

    @property
    def count(self) -> int:
        return int(self.to.max()) + 1

    @staticmethod
    def keeping(stays: Tensor) -> Shorter:
        """Those that stay, bool [n], in their order."""
        return Shorter(torch.where(stays, stays.long().cumsum(0) - 1, -1))

"""One video as PVC holds it: keys and values of the latest frames, and the tokens that the decoder will read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from laconic.methods.tokens.pvc.network import Past, Progressive


class SeenFilm:
    """Reads frames as they come. Each sees the ones before it, as far back as the network's window.

    Args:
        tower: the model's encoder. `block`: patches a side of a token.
        most: frames whose tokens are kept. When there are more, every second one is dropped, and from then on only every
            second (fourth, eighth ...) frame is kept, so that these cover all of the video evenly. None: all are kept.
    """

    def __init__(self, net: Progressive, tower: Any, block: int, most: int | None = None):
        self.net, self.tower, self.block, self.most = net, tower, block, most
        self.seen, self.stride = 0, 1
        self.past: list[Past] | None = None
        self.kept: list[tuple[int, Tensor]] = []

    def add(self, tokens: Tensor, states: Sequence[Tensor]) -> None:
        """The next frames; `states`: after the embeddings and every encoder layer, [t, N, C] each."""
        self.read(states[self.net.first])

    def read(self, states: Tensor) -> None:
        """The next frames as they are before the network's first layer, [t, N, C]."""
        made, past = self.net(self.tower, states[None], self.block, self.seen, self.past)
        self.past = [(k.clone(), v.clone()) for k, v in past]  # not a view of what earlier frames had
        for tokens in made[0]:
            if self.seen % self.stride == 0:
                self.kept.append((self.seen, tokens.clone()))
            self.seen += 1
            if self.most is not None and len(self.kept) > self.most:
                self.stride *= 2
                self.kept = [one for one in self.kept if one[0] % self.stride == 0]

    def soft(self) -> Tensor:
        """What the decoder reads, [frames m, D]."""
        return torch.cat([tokens for _, tokens in self.kept])

"""Training of the small causal generator on clips of a bouncing shape, frame after frame through its own windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from laconic.codec.images import pixels
from laconic.fit.codec import CodecFit
from laconic.methods.codecs.deep_forcing.network import FilmNet, Sizes
from laconic.methods.codecs.deep_forcing.window import Policy
from laconic.tasks.scenes.small import small_clip


@dataclass(kw_only=True)
class DeepForcingFit(CodecFit):
    """A causal generator of video, by rectified flow of each frame beside the clean frames before it.

    Args:
        frames: of a clip, all of which fit the window.
        history: noise in the frames that later ones see, as a share, so that a rollout's own errors are nothing new.
    """

    steps: int = 3000
    lr: float = 1e-3
    batch_size: int = 8
    frames: int = 8
    history: float = 0.1
    size: int = 32
    patch: int = 8
    width: int = 96
    depth: int = 4
    heads: int = 4

    method: ClassVar[str] = "deep_forcing"
    explained_in: ClassVar[tuple[type, ...]] = (Sizes,)
    may_be_zero: ClassVar[tuple[str, ...]] = ("seed", "history")

    def build(self, model: Any, tokenizer: Any) -> nn.Module:
        self.net = FilmNet(Sizes(self.size, self.patch, self.width, self.depth, self.heads))
        return self.net

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(module.parameters(), lr=self.lr, weight_decay=0.0)

    def batch(self, step: int) -> Tensor:
        first = self.first(step)
        clips = np.concatenate([small_clip(first + i, self.frames, self.size) for i in range(self.batch_size)])
        return pixels(clips).unflatten(0, (self.batch_size, self.frames))

    def loss(self, batch: Tensor) -> Iterator[Tensor]:
        whole, windows = (
            self.net.patches(batch),
            self.net.windows(Policy(window=self.frames, budget=self.frames, sink=0, recent=1)),
        )
        total = batch.new_zeros(())
        for number in range(self.frames):
            x, noise = whole[:, number], torch.randn_like(whole[:, number])
            t = torch.randn(len(x)).sigmoid()
            at = t[:, None, None]
            found = self.net((1 - at) * x + at * noise, t, windows, number, "later")
            total = total + (found - (noise - x)).square().mean() / self.frames
            self.net(x + self.history * torch.randn_like(x), torch.zeros(len(x)), windows, number, "clean")
        yield total

    def facts(self) -> dict[str, Any]:
        return self.net.sizes.as_dict()

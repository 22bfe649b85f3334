"""Training of One-D-Piece on small drawn scenes: stage 1 trains everything, stage 2 the decoder alone."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from laconic.artifact import Artifact
from laconic.codec.images import pixels
from laconic.fit.codec import CodecFit
from laconic.methods.codecs.one_d_piece.network import OneDPieceNet, Sizes
from laconic.tasks.scenes.small import small_scenes

DRAWN = ("write", "decoder", "head", "drawn_class", "drawn_place", "code_place", "mask")
"""The decoder's parts of the network."""


@dataclass(kw_only=True)
class OneDPieceFit(CodecFit):
    """A tokenizer of images of `size` pixels, whose codes go from the coarse to the fine.

    Args:
        drop: cut the tail while training; off for the tokenizer without it.
        start: an artifact to begin with; stage 2, where the encoder and the codes stay as they are and the decoder learns.
    """

    steps: int = 4000
    lr: float = 2e-3
    size: int = 32
    patch: int = 8
    tokens: int = 64
    width: int = 96
    depth: int = 3
    heads: int = 4
    levels: tuple[int, ...] = (8, 8, 8, 8)
    codes: int = 4096
    code_width: int = 12
    drop: bool = True
    start: str | None = None

    method: ClassVar[str] = "one_d_piece"
    explained_in: ClassVar[tuple[type, ...]] = (Sizes,)

    def build(self, model: Any, tokenizer: Any) -> nn.Module:
        if self.start is None:
            self.net = OneDPieceNet(Sizes(**{f.name: getattr(self, f.name) for f in fields(Sizes)}), self.drop)
            return self.net
        before = Artifact.load(self.start)
        self.net = before.restore(OneDPieceNet(Sizes.of(before.data), self.drop))
        for name, part in self.net.named_parameters():
            part.requires_grad_(name.startswith(DRAWN))
        return self.net

    def batch(self, step: int) -> Tensor:
        first = self.first(step)
        return pixels(small_scenes(first, self.batch_size, self.net.sizes.size))

    def loss(self, batch: Tensor) -> Tensor:
        drawn, quantiser = self.net(batch)
        return F.mse_loss(drawn, batch) + quantiser

    def facts(self) -> dict[str, Any]:
        return self.net.sizes.as_dict()

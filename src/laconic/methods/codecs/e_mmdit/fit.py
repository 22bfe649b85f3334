"""Training of E-MMDiT on small scenes with captions, by rectified flow."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from laconic.codec.images import pixels
from laconic.fit.codec import CodecFit
from laconic.methods.codecs.e_mmdit.drawing import Drawing
from laconic.methods.codecs.e_mmdit.network import Sizes
from laconic.tasks.scenes.captions import CAPTION_WORDS, caption
from laconic.tasks.scenes.scenes import render
from laconic.tasks.scenes.small import small_scene


@dataclass(kw_only=True)
class EMMDiTFit(CodecFit):
    """A generator of scenes with one shape from captions such as "red circle top left".

    Args:
        size, patch: pixels of an image's side and of a patch's.
        ratios: of the compressor's paths; 2,4 is the paper's. Empty: all tokens in the middle.
        slices: subregions of attention; 1: full attention.
        dropped: share of the captions that are left out, for guidance.
        reinforce: add positions again after the reconstruction.
    """

    steps: int = 3000
    lr: float = 1e-3
    clip: float | None = 0.5
    size: int = 32
    patch: int = 4
    width: int = 96
    heads: int = 4
    ffn: int = 3
    groups: tuple[int, ...] = (1, 4, 1)
    text_width: int = 32
    text: int = 16
    ratios: tuple[int, ...] = (2, 4)
    slices: int = 2
    runs: tuple[int, ...] = (1, 2)
    reinforce: bool = True
    dropped: float = 0.1

    method: ClassVar[str] = "e_mmdit"
    explained_in: ClassVar[tuple[type, ...]] = (Sizes,)
    may_be_zero: ClassVar[tuple[str, ...]] = ("seed", "dropped")

    def build(self, model: Any, tokenizer: Any) -> nn.Module:
        own = {name: getattr(self, name) for name in Sizes.__dataclass_fields__ if hasattr(self, name)}
        self.sizes = Sizes.of(own | {"side": self.size // self.patch, "channels": 3 * self.patch**2})
        self.drawing = Drawing(self.sizes, CAPTION_WORDS, self.patch)
        return self.drawing

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(module.parameters(), lr=self.lr, weight_decay=0.03, eps=1e-10)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        first = self.first(step)
        return self.examples(first, self.batch_size, self.dropped)

    def examples(self, first: int, count: int, dropped: float = 0.0) -> tuple[Tensor, Tensor]:
        """Images of the scenes from number `first` on, and the ids of their captions, of which a share is left out."""
        scenes = [small_scene(first + i, self.size, most=1) for i in range(count)]
        drawn = random.Random(f"caption-{self.seed}-{first}")
        captions = ["" if drawn.random() < dropped else caption(scene) for scene in scenes]
        return pixels(np.stack([render(s) for s in scenes])), torch.tensor([self.drawing.ids(c) for c in captions])

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self.drawing.loss(*batch)

    def facts(self) -> dict[str, Any]:
        return {"sizes": self.sizes.as_dict(), "words": list(self.drawing.words), "patch": self.patch}

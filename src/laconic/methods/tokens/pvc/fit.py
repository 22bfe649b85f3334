"""Training of PVC's temporal attention and compression by the answers of the frozen model (arXiv 2412.09613, stage 1)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from laconic.families.vision import vision_family_of
from laconic.fit.video import Filmed, Shown, VideoFit
from laconic.fit.visual import Asked
from laconic.methods.tokens.pvc.network import ORDERS, Progressive, plain_layers
from laconic.tasks.scenes.scenes import render
from laconic.tasks.video.clips import FRAMES, draw
from laconic.tasks.video.questions import QUESTIONS


@dataclass(kw_only=True)
class PVCFit(VideoFit):
    """Temporal attention, steps and readouts; encoder layers stay as they are.

    Args:
        layers: of the encoder that get temporal attention, the last ones that features pass (8 of 24 as published).
        blocks: patches a side of a token (4 as published); each step draws one, and the artifact serves them all.
        window: frames that a frame sees, itself included.
        order: "causal", or for ablations "both" directions and "none".
        told: whether the network is told the step of a frame; False is an ablation.
        repeats: how often a still image is shown; each step about some draws a number.
        stills: share of the steps about still images: the frame of a clip that shows its sign, which is to be read.
    """

    layers: int = 2
    blocks: tuple[int, ...] = (3,)
    window: int = 64
    order: str = "causal"
    told: bool = True
    repeats: tuple[int, ...] = (1, 2, 4)
    stills: float = 0.3

    method: ClassVar[str] = "pvc"
    may_be_zero: ClassVar[tuple[str, ...]] = (*VideoFit.may_be_zero, "stills")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in ORDERS:
            raise ValueError(f"pvc: order={self.order!r}: choose one of {', '.join(ORDERS)}.")

    def network(self, model: PreTrainedModel) -> Progressive:
        self.tower = vision_family_of(model).tower(model)
        plain_layers(self.tower)
        return Progressive(model, self.layers, self.blocks, self.window, self.order, self.told)  # type: ignore[arg-type]

    def drawn(self, rng: random.Random) -> list[Shown]:
        return self.still(rng, rng.choice(self.repeats)) if rng.random() < self.stills else super().drawn(rng)

    def still(self, rng: random.Random, repeats: int) -> list[Shown]:
        """Still images with a sign, each shown several times."""
        made = []
        for _ in range(self.images):
            clip = draw(rng, FRAMES[0])
            question = QUESTIONS["reading"](rng, clip)
            assert question is not None
            made.append(Shown(np.stack([render(clip.scene(clip.shown))] * repeats), [question], [[True] * repeats]))
        return made

    def logits(self, asked: Asked, rng: random.Random) -> Tensor:
        assert isinstance(asked, Filmed)
        each = len(asked.ids) // len(asked.features)
        tokens, _ = self.net(self.tower, asked.states[self.net.first], rng.choice(self.blocks))
        return self.answered(asked, tokens.flatten(1, 2).repeat_interleave(each, 0), self.words(asked))

    def facts(self) -> dict[str, Any]:
        return {
            "layers": self.layers,
            "blocks": list(self.blocks),
            "window": self.window,
            "order": self.order,
            "steps": self.told,
        }

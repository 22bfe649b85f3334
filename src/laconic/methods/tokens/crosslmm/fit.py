"""Training of CrossLMM's projector and cross-attentions by the answers of the frozen model (arXiv 2505.17020)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.families import family_of
from laconic.fit.visual import Asked, VisualFit
from laconic.methods.tokens.crosslmm.network import Beside, Side, inserted
from laconic.methods.tokens.crosslmm.side import beside, check_layers
from laconic.stream.grids import averaged

GATES = 10.0
"""How much faster the gates learn than the rest: they begin at zero, and at zero nothing that they scale learns."""


@dataclass(kw_only=True)
class CrossLMMFit(VisualFit):
    """The projector, and what visual rows and text add in some layers.

    Args:
        sides: G of every size to be trained; each step draws one, and the artifact serves them all (3 is the published size
            of most results).
        every, first: layers that look: `first`, and every `every`-th one after it (each fourth, 28 layers have 7).
        visual, text: whether visual rows look, and whether text does. Neither: pooling with a trained projector (ablations).
        alone: share of the steps in which visual rows look alone (the paper's first stage); text begins after them.
    """

    sides: tuple[int, ...] = (3,)
    every: int = 4
    first: int = 3
    visual: bool = True
    text: bool = True
    alone: float = 0.25

    method: ClassVar[str] = "crosslmm"
    may_be_zero: ClassVar[tuple[str, ...]] = (*VisualFit.may_be_zero, "first", "alone")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alone >= 1:
            raise ValueError(f"crosslmm: alone={self.alone} must be at least 0 and below 1.")
        self.reads = True  # whether text looks in the running step

    def network(self, model: PreTrainedModel) -> Beside:
        if max(self.sides) > self.side:
            raise ValueError(f"crosslmm: sides={self.sides}: this model's views have {self.side} tokens a side.")
        self._layers = family_of(model).layers(model)
        if self.first >= len(self._layers):
            raise ValueError(f"crosslmm: first={self.first}: this model has layers 0..{len(self._layers) - 1}.")
        net = Beside(model, inserted(len(self._layers), self.every, self.first), self.visual, self.text)
        check_layers(self._layers, net.layers)
        return net

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        gates = [x for name, x in module.named_parameters() if name.endswith("_gate")]
        others = [x for name, x in module.named_parameters() if not name.endswith("_gate")]
        groups = [{"params": others, "lr": self.lr}, {"params": gates, "lr": self.lr * GATES}]
        return torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.0)

    def batch(self, step: int) -> tuple[Asked, random.Random]:
        self.reads = not self.visual or step >= self.alone * self.steps
        return super().batch(step)

    def logits(self, asked: Asked, rng: random.Random) -> Tensor:
        side, each = rng.choice(self.sides), len(asked.ids) // len(asked.features)
        patches = asked.states[self.family.feature_layer(self.model) + 1]
        memory = self.net.readout(patches)
        grids = memory.unflatten(1, (self.side, self.side))
        soft = torch.stack([averaged(grid, side, side) for grid in grids]).repeat_interleave(each, 0)
        shown = asked.image[asked.stays(side**2)].unflatten(0, (len(asked.ids), -1))
        sides = {number: self._read(number, memory, each) for number in self.net.layers}

        def add(number: int, hidden: Tensor) -> Tensor:
            out: Tensor = self.net.insert(number)(hidden, shown, *sides[number])
            return out

        with beside(self._layers, self.net.layers, add):
            return self.answered(asked, soft, self.words(asked))

    def _read(self, number: int, memory: Tensor, each: int) -> tuple[Side | None, Side | None]:
        """What visual rows and text read in a layer, once for all questions about an image."""
        found = self.net.insert(number).sides(memory)
        visual, text = (None if x is None else Side(*(y.repeat_interleave(each, 0) for y in x[:2])) for x in found)
        return visual, text if self.reads else None

    def facts(self) -> dict[str, Any]:
        return {
            "sides": list(self.sides),
            "layers": list(self.net.layers),
            "visual": self.visual,
            "text": self.text,
            "side": self.side,
        }

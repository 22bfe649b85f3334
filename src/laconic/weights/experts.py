"""The experts of a mixture: where their weights are, and how they become fewer or narrower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.errors import UnsupportedModelError
from laconic.families import family_of

COUNT, WIDTH = ("num_local_experts", "num_experts"), ("moe_intermediate_size", "intermediate_size")
"""What configurations call the number of experts, and their neurons; the first that is there."""


@dataclass(frozen=True)
class Mixture:
    """The experts of one decoder layer.

    Attributes:
        layer: its number. `block`: the module that routes and mixes.
        experts: holds ``gate_up_proj`` [E, 2m, D], gates before ups, and ``down_proj`` [E, D, m].
        router: holds ``weight`` [E, D].
    """

    layer: int
    block: nn.Module
    experts: Any
    router: Any

    @property
    def count(self) -> int:
        """E, the number of experts."""
        return int(self.experts.down_proj.shape[0])

    @property
    def neurons(self) -> int:
        """m, the neurons of each."""
        return int(self.experts.down_proj.shape[2])

    def hidden(self, expert: int, x: Tensor) -> Tensor:
        """What the neurons of one expert give for its inputs x [n, D] -> [n, m]."""
        gate, up = nn.functional.linear(x, self.experts.gate_up_proj[expert]).chunk(2, -1)
        return self.experts.act_fn(gate) * up  # type: ignore[no-any-return]

    def output(self, expert: int, x: Tensor) -> Tensor:
        """What one expert gives, before it is weighted, [n, D]."""
        return nn.functional.linear(self.hidden(expert, x), self.experts.down_proj[expert])

    def choose(self, kept: Tensor) -> None:
        """Only the experts `kept`, ascending, stay."""
        for owner, name in ((self.experts, "gate_up_proj"), (self.experts, "down_proj"), (self.router, "weight")):
            setattr(owner, name, nn.Parameter(getattr(owner, name).detach()[kept], requires_grad=False))
        for module in (self.block, self.experts, self.router):
            if hasattr(module, "num_experts"):
                module.num_experts = len(kept)  # type: ignore[assignment]

    def narrow(self, kept: Tensor) -> None:
        """Only the neurons `kept` [E, n] of each expert, ascending, stay."""
        own = torch.arange(self.count, device=kept.device)[:, None]
        gate, up = self.experts.gate_up_proj.detach().chunk(2, 1)
        down = self.experts.down_proj.detach()
        self.experts.gate_up_proj = nn.Parameter(torch.cat([gate[own, kept], up[own, kept]], 1), requires_grad=False)
        narrower = down.transpose(1, 2)[own, kept].transpose(1, 2).contiguous()
        self.experts.down_proj = nn.Parameter(narrower, requires_grad=False)
        self.experts.intermediate_dim = kept.shape[1]


def mixtures(model: PreTrainedModel, method: str) -> list[Mixture]:
    """The experts of every layer that has some.

    Raises:
        UnsupportedModelError: the model is dense, or its experts are laid out otherwise.
    """
    found = []
    for number, layer in enumerate(family_of(model).layers(model)):
        block: Any = getattr(layer, "mlp", None)
        experts, router = getattr(block, "experts", None), getattr(block, "gate", None)
        laid_out = all(hasattr(experts, name) for name in ("gate_up_proj", "down_proj", "act_fn")) and hasattr(
            router, "weight"
        )
        if laid_out and experts.gate_up_proj.ndim == 3:  # type: ignore[union-attr]
            found.append(Mixture(number, block, experts, router))
    if not found:
        raise UnsupportedModelError(
            f"{method}: {type(model).__name__} has no mixture of experts that laconic knows; for a dense model "
            "choose another method (`laconic methods --site weights` lists them)."
        )
    return found


def resized(model: PreTrainedModel, count: int | None = None, width: int | None = None) -> None:
    """Write the number of experts, or of their neurons, into the configuration."""
    config = family_of(model).stack(model).config
    for names, value in ((COUNT, count), (WIDTH, width)):
        name = next((name for name in names if name in vars(config)), None)
        if value is not None and name is not None:
            setattr(config, name, value)

"""Tuning with ADSC's bottlenecks in place (arXiv 2602.12618; the recipe is our own)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedModel

from laconic.fit.tuned import TunedFit
from laconic.methods.tokens.adsc.method import ADSC
from laconic.session import Session, compress


@dataclass(kw_only=True)
class ADSCFit(TunedFit):
    """The decoder, which learns to move what matters into the tokens that stay.

    Args:
        layers, factor, mode, grid: of the method; layers None: 8, 14 and 19 of 32, scaled to the model's depth.
    """

    layers: tuple[int, ...] | None = None
    factor: int = 2
    mode: str = "last"
    grid: bool = False

    method: ClassVar[str] = "adsc"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.bottlenecks()

    def bottlenecks(self) -> ADSC:
        """The method that is tuned with; raises `ValueError` for what it does not take."""
        layers = None if self.layers is None else tuple(self.layers)
        return ADSC(layers=layers, factor=self.factor, mode=self.mode, grid=self.grid)  # type: ignore[arg-type]

    def compressed(self, model: PreTrainedModel, step: int) -> AbstractContextManager[Session | None]:
        return compress(model, self.bottlenecks())

    def facts(self) -> dict[str, Any]:
        depth = int(self.model.config.get_text_config().num_hidden_layers)
        layers = list(self.bottlenecks().cuts(depth))
        return {"layers": layers, "factor": self.factor, "mode": self.mode, "grid": self.grid}

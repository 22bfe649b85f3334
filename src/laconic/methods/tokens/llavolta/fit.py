"""Tuning by LLaVolta's stages: visual tokens averaged heavily at first, and not at all in the end (arXiv 2406.20092)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedModel

from laconic.fit.tuned import TunedFit
from laconic.methods.tokens.llavolta.schedule import FOUR_STAGES, HEAVY, LIGHT, Schedule, Stage
from laconic.session import Session

SCHEMES: dict[str, tuple[Stage, ...]] = {"four": FOUR_STAGES, "heavy": HEAVY, "light": LIGHT, "none": (Stage(),)}


@dataclass(kw_only=True)
class LLaVoltaFit(TunedFit):
    """The decoder, in stages of equal length; the artifact runs as the last one trained it.

    Args:
        scheme: "four" (ends without compression), "heavy" or "light" (one stage each), or "none": the same steps without
            compression, to compare with.
    """

    scheme: str = "four"

    method: ClassVar[str] = "llavolta"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scheme not in SCHEMES:
            raise ValueError(f"llavolta: scheme={self.scheme!r}: choose one of {', '.join(SCHEMES)}.")
        self.schedule = Schedule(SCHEMES[self.scheme])

    def compressed(self, model: PreTrainedModel, step: int) -> AbstractContextManager[Session | None]:
        return self.schedule.compressed(model, step, self.steps)

    def progress(self) -> str:
        return f"{super().progress()} stride {self.stage.stride}"

    def batch(self, step: int) -> Any:
        self.stage = self.schedule.at(step, self.steps)
        return super().batch(step)

    def facts(self) -> dict[str, Any]:
        last, depth = self.schedule.stages[-1], int(self.model.config.get_text_config().num_hidden_layers)
        method = last.method(depth)
        return {"scheme": self.scheme, "layer": None if method is None else method.layer, "stride": last.stride}

"""Training of SIRI: right answers within the cap are worth 1, all others nothing; the cap oscillates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from laconic.fit.grpo import PolicyFit
from laconic.methods.reasoning.siri.schedule import Shape, cap_at, phase_after


@dataclass(kw_only=True)
class SIRIFit(PolicyFit):
    """Answers longer than the cap are cut, and so are worth nothing; there is no other penalty on their length.

    Args:
        cycle: updates from one highest cap to the next. `low`: the lowest cap; `longest` is the highest.
        shape: of the schedule: "cosine", "stair" or "stair-cosine".
    """

    cycle: int = 20
    low: int = 40
    shape: Shape = "cosine"

    method: ClassVar[str] = "siri"

    def cap(self, step: int) -> int:
        return cap_at(step, self.cycle, self.low, self.longest, self.shape)

    def progress(self) -> str:
        return f"{super().progress()} cap {self.capped}"

    def batch(self, step: int) -> Any:
        self.capped = self.cap(step)
        return super().batch(step)

    def facts(self) -> dict[str, Any]:
        return {"phase": phase_after(self.steps, self.cycle)}

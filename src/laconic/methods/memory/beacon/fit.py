"""Training of beacons: the frozen model answers from what they keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedModel

from laconic.fit.memory import PrefixFit
from laconic.methods.memory.beacon.network import Beacons


@dataclass(kw_only=True)
class BeaconFit(PrefixFit):
    """The beacons' projections and their embedding.

    Args:
        segment: tokens of a window.
    """

    segment: int = 8

    method: ClassVar[str] = "beacon"

    def network(self, model: PreTrainedModel) -> Beacons:
        self.marker = int(self.tokenizer.eos_token_id)
        return Beacons(model, self.segment, self.marker)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "marker": self.marker}

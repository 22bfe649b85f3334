"""Activation Beacon: tokens among the text whose keys and values replace it, window after window (arXiv 2401.03462)."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.memory.contract import PrefixMethod
from laconic.method import register
from laconic.methods.memory.beacon.network import Beacons


@register(
    "beacon",
    site="memory",
    mechanism="keys and values of interleaved tokens",
    source="arXiv 2401.03462",
    query_aware=False,
    training="trained",
    inferred="what opens the prompt is the sink; one ratio for a whole context, drawn for each batch in training",
)
@dataclass(kw_only=True)
class Beacon(PrefixMethod):
    """A beacon after every few tokens of a window gathers what they say, by query, key and value projections of its own.

    When a window is full its tokens' entries go, the beacons' stay and move together, and the next window is read after
    them. The last window, if it is not full, stays as it is.

    Args:
        artifact: what `laconic fit beacon` wrote: a file, a shipped name, or a Hub id.
    """

    def build(self, model: PreTrainedModel, artifact: Artifact) -> Beacons:
        return Beacons(model, artifact.data["segment"], artifact.data["marker"])

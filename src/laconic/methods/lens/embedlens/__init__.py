"""EmbedLens: what single visual tokens carry, and what happens without them (readings, anchors, interventions)."""

from laconic.methods.lens.embedlens.anchors import discover
from laconic.methods.lens.embedlens.method import EmbedLens
from laconic.methods.lens.embedlens.readings import (
    CLASSES,
    Anchors,
    Reading,
    Shares,
    logit_lens,
    nearest,
    norms,
    read,
    shares,
)

__all__ = [
    "CLASSES",
    "Anchors",
    "EmbedLens",
    "Reading",
    "Shares",
    "discover",
    "logit_lens",
    "nearest",
    "norms",
    "read",
    "shares",
]

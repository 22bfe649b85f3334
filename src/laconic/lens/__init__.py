"""Lenses: what single tokens carry, read without changing the model."""

from laconic.lens.anchors import discover
from laconic.lens.embedlens import CLASSES, Anchors, Reading, Shares, logit_lens, nearest, norms, read, shares
from laconic.lens.interventions import EmbedLens

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

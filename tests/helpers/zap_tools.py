"""Artifacts of KVzap for tiny models."""

import torch

from laconic import Artifact
from laconic.cache.heads import shape


def tensors(layers, size, heads, width=0, seed=3):
    """A surrogate whose predictions differ from token to token and head to head."""
    drawn = torch.Generator().manual_seed(seed)
    inner = width or size
    found = {"leave": torch.randn(layers, inner, heads, generator=drawn), "leave_bias": torch.zeros(layers, 1, heads)}
    if width:
        found |= {"enter": torch.randn(layers, size, width, generator=drawn), "enter_bias": torch.zeros(layers, 1, width)}
    return found


def artifact(model, folder, width=0, thresholds=tuple(range(49, -50, -1)), **change):
    """The path of a file."""
    layers, _, heads = shape(model)
    made = tensors(layers, model.config.hidden_size, heads, width) | change
    path = folder / "kvzap.safetensors"
    Artifact.of("kvzap", "measured", model, {"r2": 1.0, "thresholds": list(thresholds)}, made).save(path)
    return str(path)

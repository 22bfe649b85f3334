"""Artifacts of TriAttention for tiny models."""

import torch

from laconic import Artifact
from laconic.cache.heads import shape
from laconic.families import family_of


def artifact(model, folder, kind="drawn"):
    """The path of a file, and its centres [layers, H, D] and sizes [layers, H, D_rot / 2]; the centres are zero, or as
    long as the queries, where `kind` says so."""
    layers, heads, _ = shape(model)
    stack = family_of(model).stack(model)
    config, turned = stack.config, 2 * stack.rotary_emb.inv_freq.numel()
    d = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    centre = torch.randn(layers, heads, d, generator=torch.Generator().manual_seed(3))
    if kind == "no centre":
        centre = torch.zeros_like(centre)
    size = centre[..., :turned].unflatten(-1, (2, -1)).square().sum(-2).sqrt()
    if kind != "no spread":
        size = size + torch.rand(size.shape, generator=torch.Generator().manual_seed(4))
    path = folder / "triattention.safetensors"
    Artifact.of("triattention", "measured", model, {"tokens": 1}, {"centre": centre, "size": size}).save(path)
    return str(path), centre, size

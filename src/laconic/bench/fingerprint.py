"""A few digits that change with a model's weights."""

from __future__ import annotations

import hashlib

import torch
from transformers import PreTrainedModel

from laconic.families.parameters import plain_parameters


def fingerprint(model: PreTrainedModel) -> str:
    """Twelve hex digits of the names, the shapes and 64 numbers spread over each parameter."""
    digest = hashlib.sha256()
    for name, weight in plain_parameters(model):
        if weight.numel():
            flat = weight.flatten()
            last = flat.numel() - 1  # linspace is of fp32, which rounds up beyond it in large embeddings
            some = flat[torch.linspace(0, last, min(64, flat.numel()), device=flat.device).long().clamp(max=last)]
            digest.update(f"{name}{tuple(weight.shape)}".encode() + some.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]

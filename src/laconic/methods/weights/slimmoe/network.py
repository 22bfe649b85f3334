"""What SlimMoE's neurons are worth to the distillation loss (arXiv 2506.18349)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.fit.losses import student_loss
from laconic.weights.experts import mixtures, resized


def sensitivity(student: PreTrainedModel, teacher: PreTrainedModel, batches: Iterable[Tensor], top: int) -> list[Tensor]:
    """Of every neuron [E, m] of every mixture: the sum of ``|w * dL/dw|`` over its three rows and columns, and over batches.

    Raises:
        ValueError: no weight has a gradient.
    """
    blocks = mixtures(student, "slimmoe")
    found = [torch.zeros(block.count, block.neurons, device=block.experts.down_proj.device) for block in blocks]
    weights = [(block.experts.gate_up_proj, block.experts.down_proj) for block in blocks]
    for ids in batches:
        with torch.no_grad():
            wanted = teacher(input_ids=ids, use_cache=False).logits
        loss = student_loss(student(input_ids=ids, use_cache=False).logits, wanted, top)
        flat = [weight for pair in weights for weight in pair]
        gradients = torch.autograd.grad(loss, flat, allow_unused=True)
        for i, (gate_up, down) in enumerate(weights):
            for weight, gradient, rows in ((gate_up, gradients[2 * i], True), (down, gradients[2 * i + 1], False)):
                if gradient is None:
                    continue
                worth = (weight.detach() * gradient).abs().float()
                found[i] += worth.sum(2).unflatten(1, (2, -1)).sum(1) if rows else worth.sum(1)
    if not any(scores.any() for scores in found):
        raise ValueError("slimmoe: no weight changes the loss; choose a smaller top.")
    return found


def narrowed(model: PreTrainedModel, scores: list[Tensor], neurons: int) -> None:
    """Keep the `neurons` of highest score in each expert, each its own."""
    for block, worth in zip(mixtures(model, "slimmoe"), scores, strict=True):
        block.narrow(worth.topk(neurons, -1).indices.sort(-1).values)
    resized(model, width=neurons)

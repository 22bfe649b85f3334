"""Relevance of visual tokens to a generated answer: attention weighted by its gradient, layer by layer (the labels of
arXiv 2506.01097, after the propagation rule of Chefer et al., arXiv 2103.15679)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.families.vision import VisionWatch
from laconic.methods.tokens.explainability.method import following


def weighted(attention: Tensor, gradient: Tensor) -> Tensor:
    """A and dy/dA, [H, T, T] each -> mean over the query heads of relu(A * dy/dA), [T, T]. Only what speaks for y counts."""
    return (attention * gradient).relu().mean(0)


def propagated(layers: Sequence[Tensor], row: int) -> Tensor:
    """Row `row` of R [T], where R = I at first and R <- R + Abar_l R for every layer, from the first to the last.

    A row vector is carried from the last layer to the first, which gives the same row without any T x T product.

    Args:
        layers: Abar of every layer, [T, T] each.
    """
    relevance = torch.zeros_like(layers[0][row])
    relevance[row] = 1.0
    for weights in reversed(layers):
        relevance = relevance + relevance @ weights
    return relevance


def step_relevance(attentions: Sequence[Tensor], scalar: Tensor, last: int) -> Tensor:
    """Relevance of all tokens to one generated token.

    Args:
        attentions: of every layer, [1, H, T, T], in the graph of `scalar`.
        scalar: its logit at position `last`.

    Returns:
        [T]; nothing after `last`, whose rows have no gradient.
    """
    gradients = torch.autograd.grad(scalar, list(attentions), retain_graph=True)
    layers = [weighted(a[0].detach(), g[0]) for a, g in zip(attentions, gradients, strict=True)]
    return propagated(layers, last)


def explained(model: PreTrainedModel, inputs: Mapping[str, Tensor], answer: Tensor) -> tuple[Tensor, Tensor]:
    """The network's input and target, for one prompt and the tokens `answer` [G] that the model gave.

    One forward pass over prompt and answer and G backward passes: as attention is causal, the matrices of a shorter pass are
    corners of this one's. The model must compute attention eagerly.

    Returns:
        attention from the instruction to the visual tokens in layer 0, and their relevance (the mean over answer tokens),
        fp32 [v] each.
    """
    ids, length = inputs["input_ids"], inputs["input_ids"].shape[1]
    whole = {name: _longer(name, x, answer) if x.shape == ids.shape else x for name, x in inputs.items()}
    learn = model.get_input_embeddings().register_forward_hook(lambda module, args, out: out.requires_grad_(True))
    try:
        with torch.enable_grad(), VisionWatch(model) as watch:
            out = model(**whole, output_attentions=True, use_cache=False)
            visual = watch.visual
            assert visual is not None
            shown = (visual.mask & ~visual.separators)[0, :length]
            at = shown.nonzero()[:, 0]
            relevance = torch.zeros(len(at))
            for t, token in enumerate(answer.tolist()):
                last = length - 1 + t
                relevance += step_relevance(out.attentions, out.logits[0, last, token], last)[at].float().cpu()
    finally:
        learn.remove()
    asking = following(at, (~visual.mask[0, :length]).nonzero()[:, 0])
    attention = out.attentions[0][0].detach()[:, asking][..., at].float().mean((0, 1)).cpu()
    return attention, relevance / len(answer)


def _longer(name: str, x: Tensor, answer: Tensor) -> Tensor:
    """Ids, mask or token kinds of the prompt [1, T] followed by those of the answer."""
    if name == "input_ids":
        return torch.cat([x, answer[None].to(x)], 1)
    filler = torch.ones if name == "attention_mask" else torch.zeros
    return torch.cat([x, filler(1, len(answer), dtype=x.dtype, device=x.device)], 1)


def target(relevance: Tensor) -> Tensor:
    """Relevance [v] as the distribution to learn: the lower half is set to zero, the rest sums to one. If there is no
    relevance at all, it is uniform over the half that stays."""
    kept = relevance.clone().float()
    kept[kept.argsort(stable=True)[: (len(kept) + 1) // 2]] = 0.0
    if float(kept.sum()) <= 0:
        kept[kept.argsort(stable=True)[(len(kept) + 1) // 2 :]] = 1.0
    return kept / kept.sum()

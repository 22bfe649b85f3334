"""The slow reference: the stock model without a cache over the whole text, with dropped entries masked per layer and head.

Layer l, head h hides key j from query i when `hidden[l][h, i, j]`. Nothing else differs from the model's eager attention.
"""

from __future__ import annotations

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from laconic.families.base import GENERIC

HIDDEN: dict[int, torch.Tensor] = {}
SEEN: dict[int, tuple[torch.Tensor, torch.Tensor, float, float | None]] = {}
"""Queries, keys (RoPE applied), scale and softcap of the last run, by layer."""


def masked_attention(module, query, key, value, attention_mask, scaling=None, softcap=None, **kwargs):
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    SEEN[module.layer_idx] = query, key, scale, softcap
    group = query.shape[1] // key.shape[1]
    logits = query @ key.repeat_interleave(group, 1).transpose(-1, -2) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = logits + attention_mask
    hidden = HIDDEN.get(module.layer_idx)
    if hidden is not None:
        logits = logits.masked_fill(hidden.repeat_interleave(group, 0), float("-inf"))
    out = logits.softmax(-1) @ value.repeat_interleave(group, 1)
    return out.transpose(1, 2).contiguous(), None


def always(*args, allow_is_causal_skip=True, **kwargs):
    return eager_mask(*args, allow_is_causal_skip=False, **kwargs)


AttentionInterface.register("reference", masked_attention)
AttentionMaskInterface.register("reference", always)


def reference_logits(
    model: PreTrainedModel, inputs: torch.Tensor | dict[str, torch.Tensor], hidden: dict[int, torch.Tensor]
) -> torch.Tensor:
    """Logits [1, n, V] of ids [1, n], or of all inputs by name, with `hidden[layer]` [Hkv, n, n] keys out of sight of the
    text stack."""
    stack = GENERIC.stack(model)
    before = stack.config._attn_implementation
    stack.set_attn_implementation("reference")
    HIDDEN.update(hidden)
    try:
        with torch.no_grad():
            return model(**(inputs if isinstance(inputs, dict) else {"input_ids": inputs}), use_cache=False).logits
    finally:
        HIDDEN.clear()
        stack.set_attn_implementation(before)


def hidden_from(session, prompt: int, total: int, heads: int) -> dict[int, torch.Tensor]:
    """What the session dropped from a prompt, as masks: evicted keys are hidden from queries after the prompt, and tokens
    that were cut from all queries of the layers that ran without them."""
    hidden = {}
    travels = torch.ones(total, dtype=torch.bool)
    streams = {event.layer: event.stream for event in session.trace.events if event.stream is not None}
    for layer in range(-1, len(session.stack.layers)):  # -1: what was cut before the first
        if layer >= 0 and layer not in session.left_alone:
            mask = torch.zeros(heads, total, total, dtype=torch.bool)
            mask[:, :, ~travels] = True
            for head in range(heads):
                gone = torch.ones(total, dtype=torch.bool)
                gone[session.kept(layer, head)] = False
                gone[prompt:] = False
                mask[head, prompt:, gone] = True
            mask &= ~torch.eye(total, dtype=torch.bool)  # a token that was cut still sees itself, so that it has an output
            hidden[layer] = mask
        if layer in streams:
            travels[:prompt] = False
            travels[streams[layer][0]] = True
    return hidden

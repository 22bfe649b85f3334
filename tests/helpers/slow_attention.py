"""What a decoder layer attends to, straight from its weights, and rows chosen one by one."""

import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb


def attention(model, layer, hidden, positions):
    """hidden [n, D] before `layer` -> its causal attention, [H, n, n]."""
    stack = model.model.language_model
    block = stack.layers[layer]
    x = block.input_layernorm(hidden[None])
    width = block.self_attn.head_dim
    q = block.self_attn.q_proj(x).view(1, len(hidden), -1, width).transpose(1, 2)
    k = block.self_attn.k_proj(x).view(1, len(hidden), -1, width).transpose(1, 2)
    q, k = apply_rotary_pos_emb(q, k, *stack.rotary_emb(x, positions[None]))
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    future = torch.full((len(hidden), len(hidden)), float("-inf")).triu(1)
    return (q @ k.mT * width**-0.5 + future)[0].softmax(-1)


def top(scores, count):
    """Places of the `count` highest of a list, ties to the earlier, ascending."""
    return sorted(sorted(range(len(scores)), key=lambda j: (-float(scores[j]), j))[:count])


def stay(hidden, visual, positions, rows, renumber=False):
    """The stream with the visual tokens `rows` (numbers in it) and all text."""
    keep = torch.tensor([n for n in range(len(hidden)) if not visual[n] or n in rows])
    return hidden[keep], visual[keep], torch.arange(len(keep)) if renumber else positions[keep]


def numbers(visual):
    return visual.nonzero()[:, 0].tolist()

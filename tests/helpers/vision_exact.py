"""A slow run of a LLaVA-class model, layer by layer, on what a plan leaves of its visual tokens; one prompt, greedy."""

import torch
from transformers.cache_utils import DynamicCache

from helpers.vision_tools import IMAGE


def embedded(model, given):
    """Hidden states of the prompt [1, T, D] and which tokens are visual [T]."""
    ids = given["input_ids"]
    hidden = model.model.language_model.embed_tokens(ids).clone()
    visual = ids[0] == IMAGE
    hidden[0, visual] = model.model.get_image_features(given["pixel_values"]).pooler_output[0].reshape(-1, hidden.shape[-1])
    return hidden, visual


def run(model, given, change, new=4):
    """Logits of `new` tokens [new, V], of the prompt's last pass, and the cache lengths of the layers.

    `change(layer, hidden [n, D], visual [n], positions [n])` returns new ones of the three before every layer.
    """
    stack = model.model.language_model
    hidden, visual = embedded(model, given)
    positions = torch.arange(hidden.shape[1])
    cache, nexts, out = DynamicCache(config=stack.config), [], []
    for i, layer in enumerate(stack.layers):
        rows, visual, positions = change(i, hidden[0], visual, positions)
        hidden = rows[None]
        n = hidden.shape[1]
        causal = torch.full((n, n), float("-inf")).triu(1)[None, None]
        phases = stack.rotary_emb(hidden, positions[None])
        hidden = layer(hidden, attention_mask=causal, position_embeddings=phases, past_key_values=cache)
        nexts.append(int(positions[-1]) + 1)
    every = model.lm_head(stack.norm(hidden))[0]
    lengths = [layer.keys.shape[2] for layer in cache.layers]
    logits = every[-1]
    for _ in range(new):
        out.append(logits)
        hidden = stack.embed_tokens(logits.argmax()[None, None])
        for i, layer in enumerate(stack.layers):
            phases = stack.rotary_emb(hidden, torch.tensor([[nexts[i]]]))
            hidden = layer(hidden, attention_mask=None, position_embeddings=phases, past_key_values=cache)
            nexts[i] += 1
        logits = model.lm_head(stack.norm(hidden))[0, -1]
    return torch.stack(out), every, lengths


def generate(model, given, new=4):
    """Logits of `new` greedy tokens of every batch row, [B, new, V]."""
    out = model.generate(**given, max_new_tokens=new, do_sample=False, output_logits=True, return_dict_in_generate=True)
    return torch.stack(out.logits, 1)

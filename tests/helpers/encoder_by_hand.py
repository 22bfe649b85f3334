"""A CLIP tower run layer by layer, the decoder run on given embeddings, and what a session's first decoder layer gets."""

import torch

from helpers.vision_tools import IMAGE, random_vlm
from laconic import compress

GREEDY = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}


def sharp_vlm():
    """The random model with an encoder whose attention has favourites."""
    model = random_vlm()
    for p in model.model.vision_tower.parameters():
        if p.ndim == 2:
            p.mul_(3.0)
    return model


def start(tower, pixels):
    """What the first layer gets, [V, T, C]."""
    return tower.pre_layrnorm(tower.embeddings(pixels))


def attention(layer, x, log_size=None):
    """One layer's attention: what it adds to x [T, C], and queries and keys [H, T, d]."""
    a = layer.self_attn
    h = layer.layer_norm1(x)
    q, k, v = (p(h).view(len(h), a.num_heads, -1).transpose(0, 1) for p in (a.q_proj, a.k_proj, a.v_proj))
    logits = q @ k.mT * a.head_dim**-0.5
    if log_size is not None:
        logits = logits + log_size
    return a.out_proj((logits.softmax(-1) @ v).transpose(0, 1).flatten(1)), q, k


def encode(model, pixels):
    """For one image [3, h, w]: (input, queries, keys) of every layer, then its output; a list."""
    tower = model.model.vision_tower
    x, result = start(tower, pixels[None])[0], []
    for layer in tower.encoder.layers:
        added, q, k = attention(layer, x)
        result.append((x, q, k))
        x = x + added
        x = x + layer.mlp(layer.layer_norm2(x))
    return [*result, (x, None, None)]


def decode(model, given, row, visual, new=4):
    """Greedy logits [new, vocabulary] of one row whose image is `visual` [n, D], at positions without gaps."""
    ids = given["input_ids"][row, given["attention_mask"][row] == 1]
    embeds = model.model.language_model.embed_tokens(ids)
    at = (ids == IMAGE).nonzero()[:, 0]
    embeds = torch.cat([embeds[: at[0]], visual, embeds[at[-1] + 1 :]])[None]
    out = model.generate(inputs_embeds=embeds, **(GREEDY | {"max_new_tokens": new}))
    return torch.cat(out.logits)


def entered(model, method, given):
    """The session after `generate()`, its output, and what decoder layer 0 got: embeddings [B, m, D], positions [B, m]."""
    seen = []
    layer = model.model.language_model.layers[0]
    with compress(model, method) as session:
        handle = layer.register_forward_pre_hook(lambda m, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
        out = model.generate(**given, **GREEDY)
        handle.remove()
    args, kwargs = seen[0]
    return session, out, args[0], kwargs["position_ids"]

"""Random adapters for tiny models, artifacts of them, and EAS's layers computed one by one from the equations."""

import torch

from laconic.artifact import Artifact, numbers
from laconic.methods.weights.eas.network import Adapters

SKIP = (1, 3)
D, H, HS = 32, 6, 8
LIKE = {"width": H, "skip_width": HS, "temperature": 0.5}


def adapters(model, skip=SKIP, seed=0, random=True):
    torch.manual_seed(seed)
    made = Adapters.of(model, skip, random=random, **LIKE).eval().requires_grad_(False)
    if random:
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def artifact(model, path, skip=SKIP, **given):
    """The file of an artifact with the adapters that `adapters` draws, and these."""
    made = adapters(model, skip, **given)
    Artifact.of("eas", "trained", model, {"skip": list(skip), "adapters": LIKE}, numbers(made)).save(path)
    return str(path), made


def generated(model, ids, new=5, **more):
    """Logits [B, new, V] and the cache."""
    out = model.generate(
        input_ids=ids, max_new_tokens=new, do_sample=False, output_logits=True, return_dict_in_generate=True, **more
    )
    return torch.stack(out.logits, 1), out.past_key_values


def by_hand(model, made, ids, skip=SKIP):
    """Logits of one whole sequence, layer by layer from the equations."""
    x, n = model.model.embed_tokens(ids), ids.shape[1]
    mask, phases = torch.full((n, n), float("-inf")).triu(1)[None, None], model.model.rotary_emb(x, torch.arange(n)[None])
    for i, layer in enumerate(model.model.layers):
        u = layer.input_layernorm(x)
        if i in skip:
            x = x + layer.mlp(made.skipped[str(i)](u) * layer.post_attention_layernorm.weight)
            continue
        y = made.kept[str(i)](u)
        x = x + layer.self_attn(y, position_embeddings=phases, attention_mask=mask)[0]
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return model.lm_head(model.model.norm(x))


def of_prompt(model, made, ids, prompt, skip=SKIP):
    """`by_hand` of `ids`, with the means of the first `prompt` tokens."""
    over = torch.zeros_like(ids)
    over[:, :prompt] = 1
    made.begin(over)
    logits = by_hand(model, made, ids, skip)
    made.begin()
    return logits

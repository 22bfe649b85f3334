"""Wanda weight by weight, from equation 1: rows compete with nothing but themselves."""

import torch
from helpers.weight_tools import calibrated, windows

import laconic


def test_scores_and_groups_weight_by_weight(make_llama):
    """The first layer's q, whose inputs no pruning has changed."""
    model = make_llama(seed=6)
    ids, weight = windows(model), model.model.layers[0].self_attn.q_proj.weight.clone()
    with torch.no_grad():
        x = model.model.layers[0].input_layernorm(model.model.embed_tokens(ids)).flatten(0, -2)
    with laconic.compress(model, calibrated("wanda:keep=0.75", model, ids)):
        pruned = model.model.layers[0].self_attn.q_proj.weight.clone()
    norms = [sum(float(v) ** 2 for v in column) ** 0.5 for column in x.T]
    for row in range(weight.shape[0]):
        scores = [abs(float(w)) * norm for w, norm in zip(weight[row], norms, strict=True)]
        gone = set(sorted(range(len(scores)), key=scores.__getitem__)[: round(0.25 * len(scores))])
        want = [0.0 if j in gone else float(w) for j, w in enumerate(weight[row])]
        assert torch.equal(pruned[row], torch.tensor(want))


def test_later_layers_are_judged_by_what_pruned_layers_give(make_llama):
    model = make_llama(seed=6)
    ids, name = windows(model), "model.layers.1.self_attn.k_proj"
    weight = model.get_submodule(name).weight.clone()
    with laconic.compress(model, calibrated("wanda", model, ids)):
        pruned = model.get_submodule(name).weight.clone()
        layers = [{n: p.clone() for n, p in layer.named_parameters()} for layer in model.model.layers]
    other = make_llama(seed=6)
    other.model.layers[0].load_state_dict(layers[0])
    seen = []
    hook = other.get_submodule(name).register_forward_pre_hook(lambda m, args: seen.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        other(input_ids=ids)
    hook.remove()
    scores = weight.abs() * seen[0].norm(dim=0)
    kept = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, scores.argsort(1)[:, scores.shape[1] // 2 :], True)
    agree = (kept == (pruned != 0)).float().mean()
    assert agree > 0.995  # sums in another order may swap two of nearly equal scores

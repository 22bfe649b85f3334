"""The smallest weights of each matrix are zero, and nothing else has changed."""

import torch

import laconic


def test_the_smallest_of_each_matrix_go(llama):
    before = {name: p.clone() for name, p in llama.named_parameters()}
    with laconic.compress(llama, laconic.Magnitude(keep=0.7)):
        for name, p in llama.named_parameters():
            if "proj" not in name:
                assert torch.equal(p, before[name])
                continue
            order = sorted(range(p.numel()), key=lambda i: abs(float(before[name].flatten()[i])))
            gone = set(order[: round(0.3 * p.numel())])
            want = [0.0 if i in gone else float(x) for i, x in enumerate(before[name].flatten())]
            assert torch.equal(p.flatten(), torch.tensor(want))


def test_two_of_four(llama):
    with laconic.compress(llama, laconic.Magnitude(pattern="2:4")):
        weight = llama.model.layers[2].mlp.gate_proj.weight
        assert ((weight.unflatten(1, (-1, 4)) == 0).sum(-1) == 2).all()

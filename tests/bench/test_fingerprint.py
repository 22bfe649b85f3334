import torch

from laconic.bench.fingerprint import fingerprint


def test_the_fingerprint_follows_the_weights(tiny_model):
    model, _ = tiny_model
    before = fingerprint(model)
    assert before == fingerprint(model)
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
        assert fingerprint(model) != before
        model.lm_head.weight[0, 0] -= 1

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


def test_a_large_embedding_has_one():
    """fp32 cannot count to its last number."""
    table = torch.nn.Embedding(49_152, 576, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        table.weight.zero_()
    before = fingerprint(table)
    with torch.no_grad():
        table.weight[-1, -1] = 1
    assert fingerprint(table) != before

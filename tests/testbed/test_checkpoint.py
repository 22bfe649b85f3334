"""Optimizers that are saved and loaded go on as if nothing had happened; nothing on disk is a pickle."""

import torch

from laconic.testbed.checkpoint import build_optimizers, load_state, save_state


def train(weight, bias, optimizers, steps, start=0):
    for step in range(start, start + steps):
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
        (x @ weight.T + bias).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def fresh():
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(5, 6, generator=generator))
    bias = torch.nn.Parameter(torch.randn(5, generator=generator))
    return weight, bias, build_optimizers([weight], [bias], 0.02, 0.01)


def test_a_loaded_state_goes_on_where_it_was(tmp_path):
    weight, bias, optimizers = fresh()
    train(weight, bias, optimizers, 3)
    save_state(tmp_path, optimizers, {"step": 3, "ema": {"count": [0.5, 7]}})
    kept = weight.detach().clone(), bias.detach().clone()
    train(weight, bias, optimizers, 2, start=3)

    again, offset, others = fresh()
    with torch.no_grad():
        again.copy_(kept[0])
        offset.copy_(kept[1])
    assert load_state(tmp_path, others) == {"step": 3, "ema": {"count": [0.5, 7]}}
    train(again, offset, others, 2, start=3)
    torch.testing.assert_close(again, weight, rtol=0, atol=0)
    torch.testing.assert_close(offset, bias, rtol=0, atol=0)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_groups_remember_their_rate():
    _, _, optimizers = fresh()
    assert [optimizer.param_groups[0]["base_lr"] for optimizer in optimizers] == [0.02, 0.01]
    assert [type(optimizer).__name__ for optimizer in optimizers] == ["Muon", "AdamW"]

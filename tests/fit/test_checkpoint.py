"""Optimizers that are saved and loaded go on as if nothing had happened; nothing on disk is a pickle."""

import pytest
import torch

from laconic import ArtifactError
from laconic.fit import checkpoint
from laconic.fit.checkpoint import CHECKPOINT, load_state, noting, resumable, save_state
from laconic.testbed.optimizers import build_optimizers


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
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_a_module_is_saved_with_them(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(3, 2)).sum().backward()
    optimizer.step()
    save_state(tmp_path, [optimizer], {"done": 1}, net)
    other = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    again = torch.optim.Adam(other.parameters())
    assert load_state(tmp_path, [again], other) == {"done": 1}
    assert all(torch.equal(x, other.state_dict()[name]) for name, x in net.state_dict().items())
    assert again.state_dict()["state"][0]["exp_avg"].equal(optimizer.state_dict()["state"][0]["exp_avg"])


def test_tied_weights_are_saved_and_stay_tied(tmp_path):
    def tied():
        net = torch.nn.ModuleDict({"embed": torch.nn.Embedding(5, 3), "head": torch.nn.Linear(3, 5, bias=False)})
        net["head"].weight = net["embed"].weight
        return net

    net, other = tied(), tied()
    save_state(tmp_path, [], {}, net)
    load_state(tmp_path, [], other)
    assert torch.equal(other["embed"].weight, net["embed"].weight) and other["head"].weight is other["embed"].weight


def test_a_save_that_fails_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    save_state(tmp_path, [], {"done": 1})

    def dies(tensors, target, metadata):
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_file", dies)
    with pytest.raises(KeyboardInterrupt):
        save_state(tmp_path, [], {"done": 2})
    assert load_state(tmp_path, []) == {"done": 1} and [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_going_on_needs_a_checkpoint_made_with_the_same_settings(tmp_path):
    settings, free = {"lr": 0.1, "steps": 5, "lengths": (1, 2)}, ("steps",)
    with pytest.raises(ArtifactError, match="holds no checkpoint"):
        resumable(tmp_path, settings, free)
    save_state(tmp_path, [], {"done": 2, "settings": settings})
    assert resumable(tmp_path, settings | {"steps": 9}, free)["done"] == 2
    with pytest.raises(ArtifactError, match=r"other settings \(lr, lengths\)"):
        resumable(tmp_path, settings | {"lr": 0.2, "lengths": (1,)}, free)
    with pytest.raises(ArtifactError, match=r"other settings \(steps\)"):
        resumable(tmp_path, settings | {"steps": 9}, ())
    for broken in (b"", b"x" * 100):
        (tmp_path / CHECKPOINT).write_bytes(broken)
        with pytest.raises(ArtifactError, match="holds no checkpoint"):
            resumable(tmp_path, settings, free)
    save_state(tmp_path, [], {"done": 2})
    with pytest.raises(ArtifactError, match="holds no checkpoint"):
        resumable(tmp_path, settings, free)


def test_lines_go_to_the_file_and_to_the_listener(tmp_path):
    told = []
    note = noting(tmp_path, told.append)
    note("one"), note("two")
    assert told == ["one", "two"] and (tmp_path / "train.log").read_text() == "one\ntwo\n"
    noting(None, told.append)("three")
    assert told[-1] == "three" and (tmp_path / "train.log").read_text() == "one\ntwo\n"

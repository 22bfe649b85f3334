"""Optimizers that are saved and loaded go on as if nothing had happened; nothing on disk is a pickle."""

import json
from dataclasses import dataclass

import pytest
import torch

from laconic import RecipeError
from laconic.fit.checkpoint import frozen, load_state, noting, resumable, save_state
from laconic.testbed.optimizers import build_optimizers


@dataclass
class Settings:
    lr: float = 0.1
    steps: int = 5


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


def test_going_on_needs_a_checkpoint_made_with_the_same_settings(tmp_path):
    with pytest.raises(RecipeError, match="holds no checkpoint"):
        resumable(tmp_path, Settings())
    save_state(tmp_path, [], {"done": 2, "settings": {"lr": 0.1, "steps": 5}})
    assert resumable(tmp_path, Settings(steps=9))["done"] == 2
    with pytest.raises(RecipeError, match=r"other settings \(lr\)"):
        resumable(tmp_path, Settings(lr=0.2))
    with pytest.raises(RecipeError, match=r"other settings \(steps\)"):
        resumable(tmp_path, Settings(steps=9), free=())
    (tmp_path / "trainer.json").write_text(json.dumps({"state": {"done": 2}}))
    with pytest.raises(RecipeError, match="holds no checkpoint"):
        resumable(tmp_path, Settings())


def test_lines_go_to_the_file_and_to_the_listener(tmp_path):
    heard = []
    note = noting(tmp_path, heard.append)
    note("one"), note("two")
    assert heard == ["one", "two"] and (tmp_path / "train.log").read_text() == "one\ntwo\n"


def test_a_frozen_model_is_as_it_was_behind_the_block(make_llama):
    model = make_llama(layers=1, implementation="sdpa")
    first = next(iter(model.parameters()))
    learning = [i % 2 == 0 for i, _ in enumerate(model.parameters())]
    for parameter, learns in zip(model.parameters(), learning, strict=True):
        parameter.requires_grad_(learns)
    with pytest.raises(KeyError), frozen(model, "eager"):
        assert not any(p.requires_grad for p in model.parameters()) and model.config._attn_implementation == "eager"
        raise KeyError
    assert [p.requires_grad for p in model.parameters()] == learning and first.requires_grad
    assert model.config._attn_implementation == "sdpa"


def test_a_model_that_cannot_attend_so_is_as_it_was(make_llama):
    model = make_llama(layers=1, implementation="sdpa").requires_grad_(True)
    with pytest.raises(ValueError, match="no_such_attention"), frozen(model, "no_such_attention"):
        raise AssertionError("the block must not run")
    assert model.config._attn_implementation == "sdpa"
    assert all(p.requires_grad for p in model.parameters())

"""A context is learned for a while: no steps change nothing, all is restored, and a pattern that goes on is likelier."""

import pytest
import torch
from helpers.thinking import asked, tiny_thinker

from laconic.fit.adapting import adapted

PATTERN = asked(1, 12, seed=3)[0].repeat(4)


@pytest.fixture
def model():
    return tiny_thinker()


def test_no_steps_change_nothing(model):
    before = model(asked()).logits
    with adapted(model, PATTERN, steps=0) as losses:
        assert losses == [] and torch.equal(model(asked()).logits, before)


def test_afterwards_everything_is_as_it_was(model):
    storage = {name: p.data_ptr() for name, p in model.named_parameters()}
    numbers = {name: p.detach().clone() for name, p in model.named_parameters()}
    before = model(asked()).logits
    with pytest.raises(KeyError), adapted(model, PATTERN, steps=2, lr=1e-2):
        assert not torch.equal(model(asked()).logits, before)
        changed = [name for name, p in model.named_parameters() if not torch.equal(p, numbers[name])]
        assert changed and all("norm" in name for name in changed)
        raise KeyError
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == storage
    assert all(
        torch.equal(p, numbers[name]) and not p.requires_grad and p.grad is None for name, p in model.named_parameters()
    )
    assert torch.equal(model(asked()).logits, before)


def test_a_pattern_that_goes_on_is_likelier(model):
    def loss():
        logits = model(PATTERN[None]).logits[0, -13:-1]
        return float(torch.nn.functional.cross_entropy(logits, PATTERN[-12:]))

    before = loss()
    with adapted(model, PATTERN[:36], steps=8, lr=1e-2) as losses:
        assert loss() < before and losses[-1] < losses[0]


def test_bad_input_is_refused(model):
    for given in ({"names": "nothing"}, {"steps": -1}):
        with pytest.raises(ValueError, match="choose names such as"), adapted(model, PATTERN, **given):
            pass
    with pytest.raises(ValueError, match="two tokens at least"), adapted(model, PATTERN[:1]):
        pass
    with pytest.raises(ValueError, match="half precision"), adapted(model.half(), PATTERN):
        pass

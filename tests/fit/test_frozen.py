"""A frozen model is as it was afterwards, whatever happens."""

import pytest

from laconic.fit.frozen import frozen


def test_a_frozen_model_is_as_it_was_after_the_block(make_llama):
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

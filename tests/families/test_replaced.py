"""Other numbers in a model's parameters, and its own back."""

import pytest
import torch
from helpers.thinking import asked, tiny_thinker

from laconic.errors import ArtifactError
from laconic.families.replaced import replaced


def test_the_model_runs_with_other_weights_and_gets_its_own_storage_back():
    model, other, ids = tiny_thinker(), tiny_thinker(seed=1), asked()
    places = {name: p.data_ptr() for name, p in model.named_parameters()}
    before = model(ids).logits
    with pytest.raises(KeyError), replaced(model, {n: p.data for n, p in other.named_parameters()}):
        torch.testing.assert_close(model(ids).logits, other(ids).logits)
        raise KeyError("exit after an exception")
    assert torch.equal(model(ids).logits, before)
    assert places == {name: p.data_ptr() for name, p in model.named_parameters()}


def test_weights_come_in_the_models_type():
    model = tiny_thinker().double()
    with replaced(model, {"model.norm.weight": torch.full((32,), 2.0)}):
        assert model.model.norm.weight.dtype == torch.float64 and model.model.norm.weight[0] == 2


@pytest.mark.parametrize("weights", [{"nothing": torch.zeros(1)}, {"model.norm.weight": torch.zeros(3)}])
def test_weights_of_another_model_are_refused_and_nothing_is_changed(weights):
    model = tiny_thinker()
    before = model(asked()).logits
    with pytest.raises(ArtifactError, match="use the model it is for"), replaced(model, weights):
        pass
    assert torch.equal(model(asked()).logits, before)

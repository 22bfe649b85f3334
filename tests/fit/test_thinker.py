"""A trainable copy of a model that thinks."""

import torch
from helpers.thinking import asked, tiny_thinker

from laconic.fit.thinker import Thinker


def test_it_is_the_model_in_pieces():
    model, ids = tiny_thinker(), asked(2)
    thinker = Thinker(model)
    torch.testing.assert_close(thinker.logits(thinker.states(thinker.embedded(ids))), model(ids).logits)
    torch.testing.assert_close(thinker.lm(ids).logits, model(ids).logits)


def test_layers_and_norm_are_trained_and_the_model_shares_nothing_with_it():
    model = tiny_thinker()
    thinker = Thinker(model)
    names = {name for name, p in thinker.named_parameters() if p.requires_grad}
    assert names == set(thinker.state_dict()) and {name.split(".")[1] for name in names} == {"layers", "norm"}
    before = model(asked()).logits
    thinker.logits(thinker.states(thinker.embedded(asked()))).sum().backward()
    with torch.no_grad():
        for p in thinker.parameters():
            p.add_(1)
    assert torch.equal(model(asked()).logits, before)
    assert not any(p.requires_grad for p in thinker.lm.get_input_embeddings().parameters())
    assert not torch.equal(thinker.lm(asked()).logits, before)  # what is trained is what runs

"""ConceptMoE's model: causal, the same step by step and in batches, and what it stores."""

import pytest
import torch
from transformers import DynamicCache

import laconic
from laconic.methods.layers.conceptmoe.cache import ConceptCache
from laconic.methods.layers.conceptmoe.network import ConceptForCausalLM

SIZES = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_local_experts": 4,
    "pad_token_id": 0,
    "eos_token_id": None,
}


def made(seed=0, **settings):
    torch.manual_seed(seed)
    model = laconic.create_method("conceptmoe").__class__(outer=1, **settings).model(**SIZES).eval()
    with torch.no_grad():
        for layer in model.decoder:  # so that the concepts' part of joint decoding is tested
            layer.attention.joint.weight.normal_(std=0.1)
        for p in model.parameters():
            if p.ndim >= 2:
                p.mul_(4)
    return model


@pytest.fixture(scope="module")
def model():
    return made()


def asked(rows=3, tokens=24, seed=1):
    return torch.randint(1, 40, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def test_3_with_every_token_a_concept_it_is_three_stacks_in_a_row():
    model, ids = made(ratio=1), asked()
    places = torch.arange(24).expand(3, -1)
    phases = model.rotary_emb(model.embed_tokens(ids), places)
    x = model.embed_tokens(ids)
    for layer in model.encoder:
        x = layer(x, phases, places, None)[0]
    concept = x
    for layer in model.middle:
        concept = layer(concept, phases, places, None)[0]
    x = x + concept
    for layer in model.decoder:
        x = layer(x, phases, places, None, concept)[0]
    torch.testing.assert_close(model(ids).logits, model.lm_head(model.norm(x)), atol=1e-5, rtol=1e-4)


def test_5_no_logit_depends_on_a_later_token(model):
    ids = asked(1)
    other = ids.clone()
    other[:, 15:] = asked(1, 9, seed=5)
    torch.testing.assert_close(model(ids).logits[:, :15], model(other).logits[:, :15], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(model(ids).logits[:, 15:], model(other).logits[:, 15:])


def test_7_a_padded_row_is_as_if_it_were_alone(model):
    ids = asked()
    mask = torch.ones_like(ids)
    for row, padding in enumerate((0, 3, 9)):
        ids[row, :padding] = mask[row, :padding] = 0
    together = model(ids, attention_mask=mask).logits
    for row, padding in enumerate((0, 3, 9)):
        alone = model(ids[row : row + 1, padding:]).logits[0]
        torch.testing.assert_close(together[row, padding:], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("piece", [1, 5])
def test_8_in_pieces_it_says_what_it_says_at_once_and_the_middle_runs_at_boundaries(model, piece):
    ids, cache, calls = asked(2), ConceptCache(5), []
    whole = model(ids).logits
    boundaries = model.told[1].view(2, 24)
    assert 2 < int(boundaries.sum()) < 48
    handle = model.middle[0].register_forward_hook(lambda *_: calls.append(1))
    try:
        parts = [model(ids[:, i : i + piece], past_key_values=cache).logits for i in range(0, 24, piece)]
    finally:
        handle.remove()
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-4)
    if piece == 1:
        assert len(calls) == int(boundaries.any(0).sum())
    assert [cache.entries(layer).tolist() for layer in range(5)] == [
        [24, 24],
        *[boundaries.sum(1).tolist()] * 3,
        [24, 24],
    ]


def test_generating_is_reading(model):
    ids = asked(2, 6)
    said = model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
    for _ in range(8):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    assert said.tolist() == ids.tolist()


def test_6_the_loss_on_words_reaches_the_boundaries():
    model = made(weight=0.0).train()
    model(asked(), labels=asked()).loss.backward()
    assert model.boundary_q.weight.grad.abs().sum() > 0 and model.boundary_k.weight.grad.abs().sum() > 0


def test_a_model_is_saved_and_loaded(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = ConceptForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(asked()).logits, model(asked()).logits)


def test_bad_input_is_refused(model):
    with pytest.raises(ValueError, match=r"ratio=0\.5 must be at least 1"):
        laconic.create_method("conceptmoe:ratio=0.5")
    with pytest.raises(ValueError, match="num_hidden_layers=4 must be above 4"):
        laconic.create_method("conceptmoe").model(**{**SIZES, "num_hidden_layers": 4})
    with pytest.raises(ValueError, match="3 rows of 24 tokens were expected"):
        model(asked(), attention_mask=torch.ones(3, 7))
    used = DynamicCache()
    used.update(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), 0)
    with pytest.raises(ValueError, match="DynamicCache holds tokens"):
        model(asked(), past_key_values=used)

"""C3: latent tokens of a smaller model, the same number for every text, and nothing but them."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import laconic
from laconic.artifact import Artifact, numbers
from laconic.fit.slots import Reading
from laconic.measure.cost import Shape
from laconic.methods.memory.c3.fit import C3Fit
from laconic.methods.memory.c3.network import Cascade, decoder_of


def smaller(vocabulary):
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64,
    )  # fmt: skip
    return decoder_of(config.to_dict())


@pytest.fixture
def network(llama):
    small = smaller(llama.config.vocab_size)
    return Cascade(small, 32, 12, 4)


@torch.no_grad()
def test_latents_are_the_small_models_last_states_at_the_queries_through_one_layer(llama, prompt, network):
    ids = prompt(2, 7)
    table = network.small.get_input_embeddings()
    mixed = torch.cat([table(ids), network.start.expand(2, 1, 16), network.queries.expand(2, 4, 16)], 1)
    states = network.small(inputs_embeds=mixed, output_hidden_states=True).hidden_states[-1][:, 8:]
    want = states @ network.linear.weight.T + network.linear.bias
    torch.testing.assert_close(network(llama, ids, 4), want)
    norms = (states / network.small.norm.weight).square().mean(-1)
    torch.testing.assert_close(norms, torch.ones(2, 4), atol=0.02, rtol=0)  # after the final norm; before it they are tiny


@torch.no_grad()
@pytest.mark.parametrize("keep", [1 / 3, 1 / 12])
def test_1_every_segment_has_as_many_whatever_its_length(llama, prompt, network, keep):
    each = round(12 * keep)
    for length, segments in ((1, 1), (5, 1), (12, 1), (13, 2), (30, 3)):
        assert network.contexts(llama, prompt(2, length), keep).shape == (2, each * segments, 32)
    whole = network.contexts(llama, prompt(1, 30), keep)
    last = network.contexts(llama, prompt(1, 30)[:, 24:], keep)
    torch.testing.assert_close(whole[:, -each:], last, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_2_every_token_changes_the_latents_and_no_query_sees_a_later_one(llama, prompt, network):
    ids = prompt(1, 12)
    before = network(llama, ids, 4)
    for place in range(12):
        other = ids.clone()
        other[0, place] = other[0, place] % 90 + 1
        assert float((network(llama, other, 4) - before).abs().amax(-1).min()) > 1e-6
    torch.testing.assert_close(network(llama, ids, 2), before[:, :2], atol=1e-6, rtol=1e-5)
    network.queries[2] += 1
    changed = (network(llama, ids, 4) - before).abs().amax(-1)[0] > 1e-6
    assert changed.tolist() == [False, False, True, True]


@torch.no_grad()
def test_6_parts_are_kept_apart_and_come_back_exactly(llama, prompt, network, tmp_path):
    facts = {
        "keeps": [1 / 3], "segment": 12, "width": 32, "latents": 4,
        "small": network.small.config.to_diff_dict() | {"model_type": "llama"},
    }  # fmt: skip
    Artifact.of("c3", "trained", llama, facts, numbers(network)).save(tmp_path / "c3.safetensors")
    saved = Artifact.load(tmp_path / "c3.safetensors")
    assert {name.split(".")[0] for name in saved.tensors} == {"small", "queries", "start", "linear", "gain"}
    method = laconic.C3(keep=1 / 3, artifact=str(tmp_path / "c3.safetensors"))
    method.attach(llama)
    ids = prompt(1, 9)
    torch.testing.assert_close(
        method.compress(llama, ids[0].tolist()), network.contexts(llama, ids, 1 / 3)[0], atol=1e-6, rtol=1e-6
    )


@torch.no_grad()
def test_8_cost_is_a_small_pass_over_the_text_and_a_layer(llama, network):
    shape, own = Shape.of(llama, llama.model), Shape.of(network.small, network.small)
    want = own.prefill_flops([12 + 1 + 4] * 2, logits=0) + 2 * 4 * 16 * 32
    assert network.flops(shape, 12, 4) == want and network.context_flops(shape, 36, 1 / 3) == 3 * want
    assert network.context_flops(shape, 5, 1 / 3) == own.prefill_flops([5 + 1 + 4] * 2, logits=0) + 2 * 4 * 16 * 32


def test_more_latents_than_queries_are_refused(llama, prompt, network):
    with pytest.raises(laconic.BudgetError, match="c3: 6 latent tokens: there are 4 queries"):
        network.contexts(llama, prompt(1, 12), 0.5)


@pytest.fixture(scope="module")
def facts():
    return laconic.load("testbed/facts")


def test_3_the_small_model_runs_once_for_an_answer(facts, tmp_path):
    model, tokenizer = facts
    fit = C3Fit(keeps=(0.25,), segment=16, steps=4)
    network = fit.build(model, tokenizer)
    Artifact.of("c3", "trained", model, fit.facts(), numbers(network)).save(tmp_path / "c3.safetensors")
    method = laconic.C3(keep=0.25, artifact=str(tmp_path / "c3.safetensors"))
    method.attach(model)
    runs = []
    method.network.small.register_forward_hook(lambda *_: runs.append(1))
    memory = laconic.Memory.of(model, tokenizer, "c5 a3 f0 b1 d7 e2 h4 g6", method)
    assert memory.soft.shape == (4, 96)
    out = model.generate(**memory.inputs(model, tokenizer, "f?"), max_new_tokens=6, num_beams=3, do_sample=False)
    assert len(runs) == 1 and out.shape[1] <= 6


def test_the_smaller_model_is_the_first_layers_and_everything_is_trained(facts):
    model, tokenizer = facts
    fit = C3Fit(keeps=(0.25,), layers=2, steps=4, batch_size=4)
    network = fit.build(model, tokenizer)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        two = model.model(ids, output_hidden_states=True).hidden_states[2]
        torch.testing.assert_close(network.small(ids).last_hidden_state, model.model.norm(two), atol=1e-5, rtol=1e-4)
    reading, keep = fit.batch(0)
    assert isinstance(reading, Reading) and reading.rest.shape[1] == 16 + 3  # joint, "copy?", the facts, the end
    asked = reading.rest[:, 2:-1]
    assert torch.equal(asked, reading.context) and reading.learned.sum() == asked.numel()
    fit.loss((reading, keep)).backward()
    assert all(p.grad is not None for name, p in network.named_parameters() if "embed_tokens" not in name)
    assert C3Fit(keeps=(0.25,), restoring=0.0).restoring == 0


def test_a_smaller_model_of_its_own(facts, tmp_path):
    model, tokenizer = facts
    config = LlamaConfig(**(model.config.to_dict() | {"hidden_size": 48, "num_hidden_layers": 1, "head_dim": 12}))
    other = LlamaForCausalLM(config)
    other.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    fit = C3Fit(small=str(tmp_path), keeps=(0.25,), steps=4, batch_size=2)
    network = fit.build(model, tokenizer)
    assert network.linear.weight.shape == (96, 48)
    torch.testing.assert_close(network.small.layers[0].mlp.up_proj.weight, other.model.layers[0].mlp.up_proj.weight)
    again = decoder_of(fit.facts()["small"])
    again.load_state_dict(network.small.state_dict())
    assert torch.isfinite(fit.loss(fit.batch(0)))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"restoring": 2.0}, "restoring=2.0 is a share of the steps"),
        ({"lengths": (16, 20)}, "lengths=20 must be whole segments of 16 tokens"),
        ({"layers": 0}, "layers=0 must be positive"),
    ],
)
def test_bad_settings(settings, match):
    with pytest.raises(ValueError, match=f"c3: {match}"):
        C3Fit(**settings)


def test_models_that_do_not_fit(facts):
    model, tokenizer = facts
    with pytest.raises(ValueError, match="c3: layers=9: this model has 8"):
        C3Fit(layers=9).build(model, tokenizer)
    with pytest.raises(ValueError, match="c3: small='testbed/lm' has another tokenizer"):
        C3Fit(small="testbed/lm").build(model, tokenizer)

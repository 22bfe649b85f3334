"""Keys and values that stand for a context: in plain calls, in sessions, at positions of their own, packed and protected."""

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

import laconic
from laconic.errors import BudgetError, UnsupportedModelError
from laconic.memory.prefix import Prefix, check_holds_prefixes, read


@pytest.fixture
def ids(prompt):
    return prompt(2, 12), prompt(2, 5, seed=1)


def in_session(model, prefix, question, *methods, held=True):
    """Logits after a prefix inside a session, and the session."""
    with laconic.compress(model, *methods) as session, torch.no_grad():
        cache = prefix.compressed(model)
        if not held:
            return model(question, past_key_values=cache).logits, session
        with session.hold():
            return model(question, past_key_values=cache).logits, session


@torch.no_grad()
def test_what_the_model_itself_keeps_is_the_context(llama, ids):
    context, question = ids
    prefix = read(llama, context)
    whole = llama(torch.cat([context, question], 1)).logits[:, -5:]
    plain = llama(question, past_key_values=prefix.cache(llama.dtype), position_ids=prefix.after(5).expand(2, -1)).logits
    torch.testing.assert_close(plain, whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(in_session(llama, prefix, question)[0], whole, atol=1e-5, rtol=1e-5)
    twice = read(llama, context[:, 7:], read(llama, context[:, :7]))
    assert twice.seen == twice.entries == prefix.entries == 12 and prefix.nbytes == 2 * 4 * 2 * 2 * 12 * 8 * 4
    torch.testing.assert_close(twice.keys[-1], prefix.keys[-1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_follows_stands_at_the_position_that_the_prefix_names(llama, ids):
    context, question = ids
    own = read(llama, context)
    prefix = Prefix(own.keys, own.values, 20)
    plain = llama(question, past_key_values=prefix.cache(llama.dtype), position_ids=prefix.after(5).expand(2, -1)).logits
    got, session = in_session(llama, prefix, question)
    torch.testing.assert_close(got, plain, atol=1e-5, rtol=1e-5)
    assert (got - in_session(llama, own, question)[0]).abs().max() > 0.1
    assert session.cache.seen == 25 and session.stats.entries == [17.0] * 4


@torch.no_grad()
def test_some_entries_and_those_that_follow(llama, ids):
    whole = read(llama, ids[0])
    first = Prefix(tuple(x[:, :, :4] for x in whole.keys), tuple(x[:, :, :4] for x in whole.values), 4)
    rest = Prefix.of(whole.cache(llama.dtype), 4, seen=12)
    joined = first.followed_by(rest)
    assert joined.seen == 12 and joined.entries == 12
    assert all(torch.equal(a, b) for a, b in zip(joined.keys + joined.values, whole.keys + whole.values, strict=True))


def test_gradients_pass_through_a_plain_call(llama, ids):
    own = read(llama, ids[0]).map(lambda x: x.detach().requires_grad_())
    llama(ids[1], past_key_values=own.cache(llama.dtype), position_ids=own.after(5).expand(2, -1)).logits.sum().backward()
    assert all(x.grad is not None and x.grad.abs().amax((0, 2, 3)).gt(0).all() for x in own.values)


def test_methods_that_evict_leave_it_alone(llama, ids):
    prefix = read(llama, ids[0])
    session = in_session(llama, prefix, ids[1], laconic.Random(keep=0.8), held=False)[1]
    kept = {
        tuple(session.cache.kept(layer, head, row).tolist()[:12]) for layer in (0, 3) for head in (0, 1) for row in (0, 1)
    }
    assert kept == {tuple(range(12))} and session.stats.entries[0] == pytest.approx(14, abs=1)
    with pytest.raises(BudgetError, match="12 tokens are protected"):
        in_session(llama, prefix, ids[1], laconic.Random(keep=0.2), held=False)


def test_methods_that_pack_pack_it(llama, ids):
    prefix = read(llama, ids[0])
    logits, session = in_session(llama, prefix, ids[1], laconic.KIVI(bits=8, group=8, residual=8))
    assert session.stats.kv_bytes < 0.9 * session.stats.kv_bytes_full
    assert (logits - in_session(llama, prefix, ids[1])[0]).abs().max() < 0.5


def test_layers_with_a_window_are_refused():
    config = MistralConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=97, sliding_window=8,
    )  # fmt: skip
    with pytest.raises(UnsupportedModelError, match="cartridge puts keys and values into every layer"):
        check_holds_prefixes(MistralForCausalLM(config), "cartridge")


def test_nothing_to_read_is_an_error(llama):
    with pytest.raises(ValueError, match="nothing to read"):
        read(llama, torch.zeros(1, 0, dtype=torch.long))

"""EAS's layers in a model, without a session; numbers are the lines of what they must show."""

import pytest
import torch
from helpers.eas_tools import HS, SKIP, D, H, adapters, by_hand, generated, of_prompt
from helpers.session_tools import assert_same_state, state

from laconic import SessionError, SnapKV, UnsupportedModelError, compress
from laconic.methods.weights.eas.applied import applied


def test_1_fresh_adapters_and_no_skips_change_nothing(llama, prompt):
    ids = prompt(2, 12)
    plain, _ = generated(llama, ids)
    with applied(llama, adapters(llama, (), random=False)):
        assert torch.equal(generated(llama, ids)[0], plain)
    assert torch.equal(generated(llama, ids)[0], plain)


def test_blocks_are_those_of_the_equations(llama, prompt):
    ids, made = prompt(1, 9), adapters(llama)
    expected = by_hand(llama, made, ids)
    with applied(llama, made):
        torch.testing.assert_close(llama(ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(llama(ids).logits, expected, atol=1e-2)


def test_2_folded_layers_equal_the_adapters(llama, prompt):
    ids, made = prompt(1, 11), adapters(llama)
    with applied(llama, made) as placed:
        expected = llama(ids).logits
        placed.fold()
        torch.testing.assert_close(llama(ids).logits, expected, rtol=1e-4, atol=1e-4)
        assert not any(hasattr(module, "router") for module in llama.modules())  # no adapter runs


def test_3_folding_for_another_prompt_begins_with_the_originals(llama, prompt):
    first, second, made = prompt(1, 11), prompt(1, 7, seed=1), adapters(llama)
    before, found = state(llama), []
    for order in ((first, second), (second,)):
        with applied(llama, made) as placed:
            for ids in order:
                placed.begin()
                llama(ids)
                placed.fold()
                logits = llama(second).logits
        found.append(logits)
    assert torch.equal(found[0], found[1])
    assert_same_state(llama, before)


def test_folding_twice_is_folding_once(llama, prompt):
    ids, made = prompt(1, 11), adapters(llama)
    with applied(llama, made) as placed:
        llama(ids)
        found = []
        for _ in range(2):
            placed.fold()
            found.append(llama(ids).logits)
    assert torch.equal(*found)


def test_4_a_skipped_layer_stores_nothing_and_decoding_uses_the_prompts_means(llama, prompt):
    ids, made = prompt(1, 10), adapters(llama)
    with applied(llama, made):
        logits, cache = generated(llama, ids, 4)
    tokens = logits[0].argmax(-1)
    assert [layer.get_seq_length() for layer in cache.layers] == [13, 0, 13, 0]
    whole = torch.cat([ids, tokens[None, :3]], 1)
    expected = of_prompt(llama, made, whole, 10)  # w and z_g of the prompt alone
    torch.testing.assert_close(logits[0], expected[0, 9:], rtol=1e-4, atol=1e-4)
    over = torch.zeros_like(whole)
    over[:, :10] = 1
    with applied(llama, made) as placed:
        placed.begin(over)
        torch.testing.assert_close(llama(whole).logits[0, 9:], logits[0], rtol=1e-4, atol=1e-4)


def test_an_answer_may_be_decoded_folded(llama, prompt):
    ids, made = prompt(1, 10), adapters(llama)
    with applied(llama, made) as placed:
        expected, _ = generated(llama, ids, 4)
        placed.begin()
        out = llama(ids, use_cache=True)
        logits, cache = [out.logits[0, -1]], out.past_key_values
        placed.fold()
        for _ in range(3):
            logits.append(llama(logits[-1].argmax()[None, None], past_key_values=cache).logits[0, -1])
    torch.testing.assert_close(torch.stack(logits), expected[0], rtol=1e-4, atol=1e-4)


def test_padded_rows_have_their_own_means(llama, prompt):
    made, ids = adapters(llama), prompt(2, 10)
    ids[1, :4] = 0
    mask = (ids != 0).long()
    with applied(llama, made) as placed:
        placed.begin(mask)
        both, _ = generated(llama, ids, 3, attention_mask=mask)
        placed.begin()
        alone, _ = generated(llama, ids[1:, 4:], 3)
    torch.testing.assert_close(both[1], alone[0], rtol=1e-4, atol=1e-4)


def test_8_attention_disappears_and_no_token_does(make_llama, prompt):
    """4 T D^2 (here with grouped queries: 3 T D^2 multiplications) and the pairs of the skipped layers."""
    from torch.utils.flop_counter import FlopCounterMode

    ids, t, llama = prompt(1, 16), 16, make_llama(implementation="eager")

    def flops(skip):
        with applied(llama, adapters(llama, skip, random=False)), FlopCounterMode(display=False) as counter, torch.no_grad():
            logits = llama(ids).logits
        assert logits.shape[1] == t
        return counter.get_total_flops()

    kept, skipped = (2 * t * D * H * 1 + 2 * 2 * t * H // 2 * D, 2 * 2 * t * D * HS + 2 * 2 * t * HS // 2 * D)
    adapters_cost = 2 * (skipped - kept)
    attention = 2 * (2 * t * (2 * D * D + 2 * D * D // 2) + 2 * 2 * t * t * D)
    assert flops(()) - flops(SKIP) == pytest.approx(attention - adapters_cost, rel=0.01)


@pytest.mark.filterwarnings("ignore:snapkv was asked")
def test_a_session_may_be_opened_inside(llama, prompt):
    ids, made = prompt(1, 20), adapters(llama, (2, 3))
    with applied(llama, made) as placed:
        expected, _ = generated(llama, ids, 4)
        placed.begin()
        with compress(llama) as session:
            logits, _ = generated(llama, ids, 4)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        assert [layer.stored for layer in session.cache.compressed()] == [23, 23, 0, 0]
        placed.begin()
        with compress(llama, SnapKV(tokens=8, window=4)) as session:
            generated(llama, ids, 4)
        assert [layer.stored for layer in session.cache.compressed()] == [11, 11, 0, 0]
        assert session.stats.entries == [11.0, 11.0, 0.0, 0.0] and session.stats.stream == {0: 20, 1: 20}


@pytest.mark.parametrize("fold", [False, True])
def test_everything_is_restored_after_an_error(llama, prompt, fold):
    before, made = state(llama), adapters(llama)
    with pytest.raises(ZeroDivisionError), applied(llama, made) as placed:
        llama(prompt(1, 5))
        if fold:
            placed.fold()
        raise ZeroDivisionError
    assert_same_state(llama, before)
    assert all(adapter.mix is None for adapter in made.each())


def test_folding_needs_one_prompt_and_changes_nothing_without_it(llama, prompt):
    made, before = adapters(llama), state(llama)
    with applied(llama, made) as placed:
        inside = state(llama)
        with pytest.raises(SessionError, match="batch of one"):
            placed.fold()
        llama(prompt(2, 5))
        with pytest.raises(SessionError, match="batch of one"):
            placed.fold()
        assert_same_state(llama, inside)
        with pytest.raises(UnsupportedModelError, match="has EAS's adapters already"), applied(llama, made):
            pass
    assert_same_state(llama, before)


def of_gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=8, n_head=1))


def of_gemma():
    from transformers import GemmaConfig, GemmaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 4}
    return GemmaForCausalLM(GemmaConfig(vocab_size=16, num_key_value_heads=2, **sizes))


@pytest.mark.parametrize(
    ("build", "message"),
    [(of_gpt2, "no rotary embedding beside its layers"), (of_gemma, "a norm that does more than multiply")],
)
def test_other_layouts_are_refused(llama, build, message):
    with pytest.raises(UnsupportedModelError, match=message), applied(build(), adapters(llama)):
        pass

"""The attention seam on its own: what is registered, which masks are built, and softcapped layers that are left alone."""

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from laconic import UnsupportedModelError, compress
from laconic.cache.attention import NAME, attention, mask, register
from laconic.errors import SessionError


def tensors(t, n, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return (
        torch.randn(2, 4, t, 8, generator=draw),
        torch.randn(2, 2, n, 8, generator=draw),
        torch.randn(2, 2, n, 8, generator=draw),
    )


def plain(q, k, v, visible, softcap=None, scale=8**-0.5):
    logits = q @ k.repeat_interleave(2, 1).transpose(-1, -2) * scale
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    out = logits.masked_fill(~visible, float("-inf")).softmax(-1) @ v.repeat_interleave(2, 1)
    return out.transpose(1, 2)


class Layer(torch.nn.Module):
    num_key_value_groups = 2
    is_causal = True
    layer_idx = 0


def test_registering_adds_one_name_and_changes_no_other():
    tables = [AttentionInterface()._global_mapping, AttentionMaskInterface()._global_mapping]
    before = [{name: f for name, f in table.items() if name != NAME} for table in tables]
    register()
    register()
    assert [{name: f for name, f in table.items() if name != NAME} for table in tables] == before
    assert [table[NAME] for table in tables] == [attention, mask]


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize(("t", "n"), [(6, 6), (1, 6), (3, 9)])
def test_layers_that_are_left_alone(softcap, t, n):
    """Plain tensors with transformers' own mask: the same as written out, with and without a softcap."""
    q, k, v = tensors(t, n)
    visible = torch.ones(t, n, dtype=torch.bool).tril(n - t) & torch.ones(t, n, dtype=torch.bool).triu(n - t - 3)
    out, weights = attention(Layer(), q, k, v, visible[None, None], scaling=0.3, softcap=softcap)
    assert weights is None
    torch.testing.assert_close(out, plain(q, k, v, visible, softcap, 0.3), rtol=1e-5, atol=1e-6)


def test_softcap_without_a_mask_is_causal():
    q, k, v = tensors(5, 5)
    out, _ = attention(Layer(), q, k, v, None, softcap=3.0)
    torch.testing.assert_close(out, plain(q, k, v, torch.ones(5, 5, dtype=torch.bool).tril(), 3.0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["s_aux", "position_bias"])
def test_what_cannot_be_merged_is_refused(name):
    with pytest.raises(UnsupportedModelError, match=f"Layer uses {name} in its attention"):
        attention(Layer(), *tensors(4, 4), None, **{name: torch.zeros(4)})


def test_what_is_not_available_is_refused():
    with pytest.raises(SessionError, match="output_attentions is not available"):
        attention(Layer(), *tensors(4, 4), None, output_attentions=True)
    with pytest.raises(SessionError, match="attention dropout is not applied"):
        attention(Layer(), *tensors(4, 4), None, dropout=0.1)


SIZES = {"batch_size": 1, "q_length": 6, "kv_length": 6, "q_offset": 0, "kv_offset": 0}


def test_masks():
    """None for full attention, whose cache layer knows what is visible; transformers' own for windows; nothing else."""
    padding = torch.tensor([[False, True, True, True, True, True]])
    assert mask(mask_function=causal_mask_function, attention_mask=padding, **SIZES) is None
    window = mask(mask_function=sliding_window_causal_mask_function(3), local_size=3, attention_mask=padding, **SIZES)
    expected = torch.ones(6, 6, dtype=torch.bool).tril() & torch.ones(6, 6, dtype=torch.bool).triu(-2) & padding[0]
    assert torch.equal(window[0, 0, 1:], expected[1:])
    with pytest.raises(UnsupportedModelError, match="not plain causal"):
        mask(mask_function=lambda *a: True, **SIZES)


def test_positions_of_ones_own_equal_stock(llama, prompt):
    ids, positions = prompt(1, 10), torch.tensor([[0, 1, 2, 3, 0, 1, 7, 8, 9, 30]])
    stock = llama(ids, position_ids=positions).logits
    with compress(llama):
        torch.testing.assert_close(llama(ids, position_ids=positions).logits, stock, rtol=1e-5, atol=1e-5)

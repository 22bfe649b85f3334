"""One layer: what it attends to, what it reports to transformers, and what it refuses."""

import pytest
import torch
from helpers.reference import slow_attend
from transformers import LlamaConfig

from laconic.cache.cache import CompressedCache
from laconic.cache.layer import selected
from laconic.cache.parts.base import DensePart
from laconic.cache.parts.ragged import RaggedPart
from laconic.errors import SessionError, UnsupportedModelError
from laconic.ops.select import Selection
from laconic.step import Step


@pytest.fixture
def cache():
    return CompressedCache(
        LlamaConfig(hidden_size=16, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2, vocab_size=10)
    )


def tensors(t, b=2, d=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(b, h, t, d, generator=generator) for h in (4, 2, 2)]


def run(cache, t, valid=None, seed=0, number=0):
    """One pass of t tokens through layer `number`, as the model does it: update, then the attention function."""
    layer = cache.layers[number]
    start, b = layer.seen, 2
    real = [start + t] * b  # only methods look at it
    cache.step = Step(start, t, torch.arange(start, start + t)[None], real, valid=valid)
    q, k, v = tensors(t, seed=seed)
    new, same = layer.update(k, v)
    assert new is same
    return q, k, v, layer.attend(q, new.keys, new.values, 0.5, None)


def hide(valid):
    return torch.zeros(valid.shape).masked_fill(~valid, -torch.inf)[:, None].expand(-1, 2, -1)


def test_prompt_steps_and_chunk_equal_one_dense_softmax(cache):
    keys, values = [], []
    for seed, t in enumerate((7, 1, 1, 4, 1)):
        q, k, v, out = run(cache, t, seed=seed)
        keys.append(k)
        values.append(v)
        want = slow_attend(q, torch.cat(keys, 2), torch.cat(values, 2), 0.5, causal=True)[0]
        torch.testing.assert_close(out.double(), want, atol=1e-5, rtol=1e-5)
    layer = cache.layers[0]
    assert layer.seen == layer.get_seq_length() == layer.stored == 14
    assert layer.nbytes == 2 * 2 * 2 * 14 * 4 * 4 and not layer.evicted


def test_left_padding_is_never_seen(cache):
    valid = torch.tensor([[False, False, True, True, True], [True] * 5])
    q, k, v, out = run(cache, 5, valid=valid, seed=1)
    want = slow_attend(q, k, v, 0.5, hide(valid), causal=True)[0]
    torch.testing.assert_close(out.double(), want, atol=1e-5, rtol=1e-5)
    q, k1, v1, out = run(cache, 1, seed=2)
    bias = torch.cat([hide(valid), torch.zeros(2, 2, 1)], -1)
    want = slow_attend(q, torch.cat([k, k1], 2), torch.cat([v, v1], 2), 0.5, bias)[0]
    torch.testing.assert_close(out.double(), want, atol=1e-5, rtol=1e-5)
    assert cache.layers[0].lengths.tolist() == [[4, 4], [6, 6]]
    assert cache.layers[0].kept(0, 1).tolist() == [2, 3, 4, 5]


def test_replace_frees_the_rest(cache):
    run(cache, 6)
    layer = cache.layers[0]
    keys, values, columns = layer.everything(*tensors(2, seed=5)[1:], {})
    assert keys.shape[2] == 8 and not columns
    columns["index"] = torch.arange(8, dtype=torch.int32).expand(2, 2, 8)
    index = torch.tensor([[[0, 5, 7], [1, 2, 3]], [[4, 5, 6], [0, 1, 7]]])
    layer.store([selected(keys, values, columns, Selection(index), ragged=False)])
    assert isinstance(layer.parts[0], DensePart) and layer.evicted and layer.pinned == 6
    assert layer.nbytes == 2 * 2 * 2 * 3 * 4 * 4
    assert torch.equal(layer.parts[0].keys[0, 1], keys[0, 1, [1, 2, 3]])
    assert [layer.kept(b, h).tolist() for b in range(2) for h in range(2)] == index.flatten(0, 1).tolist()


@pytest.mark.parametrize("ragged", [True, False])
def test_replace_with_uneven_heads_is_ragged_or_filled_up(cache, ragged):
    run(cache, 4)
    layer = cache.layers[0]
    keys, values, columns = layer.parts[0].padded()
    columns = {"index": torch.arange(4, dtype=torch.int32).expand(2, 2, 4)}
    index = torch.tensor([[[0, 3], [2, 4]], [[1, 2], [3, 4]]])
    layer.store([selected(keys, values, columns, Selection(index, torch.tensor([[2, 1], [2, 1]])), ragged)])
    assert isinstance(layer.parts[0], RaggedPart if ragged else DensePart)
    assert layer.lengths.tolist() == [[2, 1], [2, 1]]
    assert layer.nbytes == (6 if ragged else 8) * 2 * 4 * 4
    assert layer.kept(0, 1).tolist() == [2] and layer.kept(1, 0).tolist() == [1, 2]
    q, k, v, out = run(cache, 1, seed=8)
    hidden = torch.full((2, 2, 5), -torch.inf)
    for b, h, kept in ((0, 0, [0, 3]), (0, 1, [2]), (1, 0, [1, 2]), (1, 1, [3])):
        hidden[b, h, [*kept, 4]] = 0
    want = slow_attend(q, torch.cat([keys, k], 2), torch.cat([values, v], 2), 0.5, hidden)[0]
    torch.testing.assert_close(out.double(), want, atol=1e-5, rtol=1e-5)
    # the new token is number 4 of the sequence, not entry 2 of the cache
    assert layer.kept(0, 1).tolist() == [2, 4] and layer.get_seq_length() == 5


def test_crop_rolls_back_to_where_something_was_evicted(cache):
    _, k, _, _ = run(cache, 6)
    layer = cache.layers[0]
    layer.crop(-2)
    assert layer.seen == layer.stored == 4
    assert torch.equal(layer.parts[0].keys, k[:, :, :4])
    with pytest.raises(ValueError, match="negative"):
        layer.crop(3)
    layer.evicted = True
    for _ in range(3):
        run(cache, 1)
    with pytest.raises(SessionError, match="of the 7 tokens in this cache only the last 3 can be rolled back"):
        layer.crop(-4)
    layer.crop(-3)
    assert layer.seen == layer.stored == 4


def test_mask_sizes_are_what_is_stored_and_how_far_it_was_shifted(cache):
    run(cache, 6)
    layer = cache.layers[0]
    assert layer.get_mask_sizes(1) == (7, 0)
    keys, values, _ = layer.parts[0].padded()
    index = torch.tensor([0, 5]).expand(2, 2, 2)
    layer.store([selected(keys, values, {"index": torch.arange(6).expand(2, 2, 6)}, Selection(index), False)])
    assert layer.get_mask_sizes(1) == (3, 4)


def test_reset_forgets_everything(cache):
    run(cache, 3)
    layer = cache.layers[0]
    layer.reset()
    assert layer.seen == layer.stored == layer.nbytes == 0 and not layer.is_initialized


def test_update_outside_of_a_session_is_refused(cache):
    with pytest.raises(SessionError, match="open a session"):
        cache.layers[0].update(*tensors(1)[1:])


def test_models_that_look_at_the_new_entries_are_refused(cache):
    cache.step = Step(0, 1, torch.zeros(1, 1), [1, 1])
    new, _ = cache.layers[0].update(*tensors(1)[1:])
    with pytest.raises(UnsupportedModelError, match="`shape`"):
        _ = new.shape


def test_a_layer_that_stores_nothing_has_lengths():
    cache = CompressedCache(LlamaConfig(num_hidden_layers=2))
    assert [layer.lengths.tolist() for layer in cache.compressed()] == [[[0]], [[0]]]

"""The whole cache: layers of every kind, batch changes, metering, and eviction from pass to pass."""

import copy

import pytest
import torch
from transformers import GPT2Config, LlamaConfig, MistralConfig, Qwen2Config
from transformers.cache_utils import DynamicSlidingWindowLayer

import laconic
from laconic.cache.cache import CompressedCache
from laconic.cache.layer import CompressedLayer
from laconic.errors import SessionError, UnsupportedModelError


def test_sliding_layers_keep_transformers_own_kind():
    config = Qwen2Config(
        num_hidden_layers=4,
        layer_types=["full_attention", "sliding_attention"] * 2,
        sliding_window=8,
        use_sliding_window=True,
    )
    cache = CompressedCache(config)
    assert cache.layer_ids == [0, 2]
    assert isinstance(cache.layers[1], DynamicSlidingWindowLayer) and isinstance(cache.layers[2], CompressedLayer)
    assert [layer.number for layer in cache.compressed()] == [0, 1]


def test_models_without_full_attention_are_refused():
    with pytest.raises(UnsupportedModelError, match="no layer of full attention alone"):
        CompressedCache(MistralConfig(num_hidden_layers=2, sliding_window=8))
    assert CompressedCache(GPT2Config(n_layer=2)).layer_ids == [0, 1]


@pytest.fixture
def filled(llama, prompt):
    """A cache of two sequences, the first padded by 3."""
    ids, mask = prompt(2, 20), torch.ones(2, 20, dtype=torch.long)
    mask[0, :3] = 0
    with laconic.compress(llama, laconic.KNorm(keep=0.5)) as session:
        llama(ids, attention_mask=mask)
    return session.cache


def kept(cache, row):
    return [layer.kept(row, head).tolist() for layer in cache.compressed() for head in range(2)]


def test_what_is_known_per_sequence_follows_batch_changes(filled):
    assert filled.real == [17, 20]
    first, second = kept(filled, 0), kept(filled, 1)
    assert first != second
    filled.batch_repeat_interleave(2)
    assert filled.real == [17, 17, 20, 20]
    assert [kept(filled, b) for b in range(4)] == [first, first, second, second]
    filled.reorder_cache(torch.tensor([3, 0, 1, 2]))
    assert filled.real == [20, 17, 17, 20]
    assert [kept(filled, b) for b in range(4)] == [second, first, first, second]
    filled.batch_select_indices(torch.tensor([True, True, False, False]))
    assert filled.real == [20, 17] and kept(filled, 0) == second
    filled.batch_select_indices(torch.tensor([1]))
    assert filled.real == [17] and kept(filled, 0) == first


def test_sizes_add_up_over_layers(filled):
    # 8 of 17 and 10 of 20 entries; the shorter row is filled up to 10
    assert [layer.lengths.tolist() for layer in filled.compressed()] == [[[8, 8], [10, 10]]] * 4
    assert filled.nbytes == 4 * 2 * 2 * 10 * 2 * 8 * 4
    assert filled.allocated > filled.nbytes
    assert filled.seen == filled.get_seq_length() == filled.get_seq_length(3) == 20
    assert filled.entry_bytes == 4 * 2 * 2 * 8 * 4


def test_reset_makes_the_cache_new(filled):
    filled.late.nbytes = 5
    filled.reset()
    assert filled.late.nbytes == 0 and filled.seen == 0 and filled.real == [] and filled.nbytes == 0


def test_half_written_caches_are_refused(llama, filled, prompt):
    def fail(module, args):
        raise RuntimeError("out of memory")

    hook = llama.model.layers[2].register_forward_pre_hook(fail)
    with laconic.compress(llama):
        try:
            with pytest.raises(RuntimeError, match="out of memory"):
                llama(prompt(2, 1), past_key_values=filled)
        finally:
            hook.remove()
        with pytest.raises(SessionError, match="half written"):
            llama(prompt(2, 1), past_key_values=filled)


def test_events_say_what_was_removed(llama, prompt):
    with laconic.compress(llama, laconic.SnapKV(keep=0.25, window=4)) as session:
        llama.generate(prompt(1, 40), max_new_tokens=3)
    assert [(e.layer, e.method, e.before, e.after) for e in session.trace.events] == [
        (i, "snapkv", 40, 10) for i in range(4)
    ]
    assert session.trace.removed() == dict.fromkeys(range(4), 30)


def test_crop_rolls_back_the_counts_of_real_tokens(llama, prompt):
    ids = prompt(2, 12)
    with laconic.compress(llama) as session:
        whole = llama(ids).logits
        session.cache.crop(-4)
        assert session.cache.real == [8, 8] and session.cache.seen == 8
        again = llama(ids[:, 8:], past_key_values=session.cache).logits
    torch.testing.assert_close(again, whole[:, 8:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["streaming_llm", "tova", "h2o"])
def test_eviction_that_begins_while_decoding_remembers_which_tokens_stay(llama, prompt, method):
    """The prompt fits the budget, so the entries carry no index yet when the first one goes."""
    ids = prompt(1, 10)
    with laconic.compress(llama, laconic.create_method(f"{method}:tokens=12")) as session:
        llama.generate(ids, max_new_tokens=13, do_sample=False)
        kept = [session.kept(layer, head).tolist() for layer in range(4) for head in range(2)]
    assert session.cache.seen == 22
    assert all(len(k) == 12 and len(set(k)) == 12 for k in kept)
    assert all(k[-1] == 21 for k in kept)  # the newest token is known as such, not by its place
    if method == "streaming_llm":
        assert kept == [[0, 1, 2, 3, *range(14, 22)]] * 8


def test_two_rows_of_different_length_go_over_their_budget_at_different_steps(llama, prompt):
    """A budget share grows with the sequence: the padded row may keep an entry when its neighbour must not."""
    ids, mask = prompt(2, 20), torch.ones(2, 20, dtype=torch.long)
    mask[0, :7] = 0
    new = prompt(2, 9, seed=1)
    single = []
    for b in range(2):
        with laconic.compress(llama, laconic.StreamingLLM(keep=0.6)) as session:
            llama(ids[b : b + 1, 7 * (b == 0) :])
            for i in range(9):
                llama(new[b : b + 1, i : i + 1], past_key_values=session.cache)
            single.append([session.kept(0, h).tolist() for h in range(2)])
    with laconic.compress(llama, laconic.StreamingLLM(keep=0.6)) as session:
        llama(ids, attention_mask=mask)
        for i in range(9):
            llama(new[:, i : i + 1], past_key_values=session.cache)
        both = [[(session.kept(0, h, b) - 7 * (b == 0)).tolist() for h in range(2)] for b in range(2)]
    assert both == single
    assert session.cache.layers[0].lengths.tolist() == [[int(22 * 0.6)] * 2, [int(29 * 0.6)] * 2]


@pytest.mark.parametrize("method", ["knorm", "truncate", "snapkv", "adakv:scorer=truncate"])
def test_a_padded_chunk_that_was_kept_whole_does_not_renumber_the_next(llama, prompt, method):
    """The first chunk fits the budget, so its entries carry no index yet; the second one does not fit."""
    ids, mask = prompt(2, 24), torch.ones(2, 24, dtype=torch.long)
    mask[0, :5] = 0
    kept = []
    for rows in (slice(None), slice(1, 2)):
        with laconic.compress(llama, laconic.create_method(f"{method}{',' if ':' in method else ':'}tokens=12")) as session:
            llama(ids[rows, :12], attention_mask=mask[rows, :12])
            llama(ids[rows, 12:], attention_mask=mask[rows], past_key_values=session.cache)
        kept.append([session.kept(layer, head, -1).tolist() for layer in range(4) for head in range(2)])
    assert kept[0] == kept[1]
    assert all(len(set(k)) == len(k) for k in kept[0])
    if "truncate" in method:
        assert kept[0] == [list(range(12, 24))] * 8


def test_scores_of_a_cut_to_come_are_counted(filled):
    before = filled.allocated
    filled.late.ranks.append(torch.zeros(2, 2, 10))
    assert filled.allocated == before + 2 * 2 * 10 * 4


def test_phases_need_a_session():
    with pytest.raises(SessionError, match="made outside a session"):
        CompressedCache(LlamaConfig(num_hidden_layers=1)).phases(0, torch.zeros(1, 1))


def test_a_copy_shares_the_methods_and_the_model(llama, prompt):
    ids = prompt(1, 20)
    with laconic.compress(llama, laconic.DapQ(keep=0.5)) as session:
        llama(ids)
        twin = copy.deepcopy(session.cache)
        assert twin.method is session.cache.method and twin.rotary is session.cache.rotary
        for mine, its in zip(session.cache.compressed(), twin.compressed(), strict=True):
            assert its.cache is twin and its.parts[0] is not mine.parts[0]
            assert its.parts[0].keys.data_ptr() != mine.parts[0].keys.data_ptr()
        llama(ids[:, :4], past_key_values=twin)
        assert (twin.seen, session.cache is twin, session.trace is twin.trace) == (24, True, True)

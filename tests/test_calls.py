"""What a call brings: its cache, its tokens, and arguments that cannot be had inside a session."""

import pytest
import torch
from transformers import DynamicCache

import laconic
from laconic import SessionError, SnapKV
from laconic.cache.cache import CompressedCache
from laconic.calls import cache_of, check_arguments, input_of


@pytest.mark.parametrize("make", [lambda: None, DynamicCache])
def test_an_empty_start_gets_a_new_cache(llama, make):
    cache = cache_of(make(), llama.model)
    assert isinstance(cache, CompressedCache) and cache.seen == 0 and cache is not cache_of(make(), llama.model)


# -- a cache of the user's own ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("configured", [True, False])
def test_a_users_own_cache_stands_for_the_compressed_one(llama, prompt, configured):
    """transformers' own pattern: one object is handed to every call and filled in place."""
    text, question, fed = prompt(1, 60), prompt(1, 8, seed=3), []
    own = DynamicCache(config=llama.config) if configured else DynamicCache()
    handle = llama.model.register_forward_pre_hook(
        lambda _, args, kw: fed.append(kw["input_ids"].shape[1]), with_kwargs=True
    )
    with torch.no_grad(), laconic.compress(llama, SnapKV(keep=0.3)) as session:
        llama.generate(text, past_key_values=own, max_new_tokens=1, do_sample=False)
        assert own.get_seq_length() == 60 and session.stats.entries == [18.0] * 4
        with session.hold():
            llama.generate(torch.cat([text, question], 1), past_key_values=own, max_new_tokens=3, do_sample=False)
        assert fed[1] == 8 and own.get_seq_length() == 70 and session.stats.entries == [28.0] * 4
        own.crop(-10)
        assert own.get_seq_length() == session.cache.get_seq_length() == 60 and session.cache.real == [60]
        own.reset()
        llama(text, past_key_values=own)
        assert own.get_seq_length() == 60 and session.stats.entries == [18.0] * 4 and session.cache.real == [60]
    handle.remove()
    with pytest.raises(SessionError, match="works inside"):
        llama(question, past_key_values=own)


def test_a_users_own_cache_of_a_cache_that_was_rewound_is_refused(llama, prompt):
    own = DynamicCache()
    with torch.no_grad(), laconic.compress(llama) as session:
        llama(prompt(1, 20), past_key_values=own)
        own.layers = list(own.layers)
        with pytest.raises(SessionError, match="rewound since; pass that cache itself"):
            llama(prompt(1, 2), past_key_values=own)
        assert session.cache.seen == 20


def test_a_mask_that_hides_cached_tokens_is_refused(llama, prompt):
    mask = torch.ones(2, 26, dtype=torch.long)
    mask[1, :3] = 0
    with torch.no_grad(), laconic.compress(llama, SnapKV(keep=0.5)) as session:
        llama(prompt(2, 20), attention_mask=mask[:, :20])
        llama(prompt(2, 3), attention_mask=mask[:, :23], past_key_values=session.cache)
        hiding = mask.clone()
        hiding[0, 5:9] = 0
        with pytest.raises(SessionError, match="attention_mask hides 4 tokens that are in the cache already"):
            llama(prompt(2, 3), attention_mask=hiding, past_key_values=session.cache)
        llama(prompt(2, 3), attention_mask=mask, past_key_values=session.cache)
        assert session.cache.real == [26, 23]


def test_an_earlier_cache_is_used_again(llama, make_llama):
    cache = CompressedCache(llama.config)
    assert cache_of(cache, llama.model) is cache
    with pytest.raises(SessionError, match="4 layers, the model 2: it belongs to another model"):
        cache_of(cache, make_llama(layers=2).model)


def test_ids_win_over_embeddings_and_something_must_be_there():
    ids, embeds = torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3, 8)
    assert input_of({"input_ids": ids, "inputs_embeds": embeds}) is ids
    assert input_of({"input_ids": None, "inputs_embeds": embeds}) is embeds
    with pytest.raises(SessionError, match="without input_ids or inputs_embeds"):
        input_of({})
    for empty in (ids[:, :0], ids[:0], embeds[:, :0]):
        with pytest.raises(SessionError, match="the prompt is empty"):
            input_of({"inputs_embeds": empty})


def test_the_models_own_configuration_is_asked_where_the_call_says_nothing(make_llama):
    model = make_llama(implementation="eager")
    check_arguments({}, model, model.model)
    model.config.use_cache = False
    check_arguments({"use_cache": True}, model, model.model)
    with pytest.raises(SessionError, match="use_cache=False stores nothing"):
        check_arguments({}, model, model.model)
    model.config.use_cache, model.config.output_attentions = True, True
    check_arguments({"output_attentions": False}, model, model.model)
    with pytest.raises(SessionError, match="output_attentions is not available"):
        check_arguments({}, model, model.model)

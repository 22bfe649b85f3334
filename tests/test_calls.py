"""What a call brings: its cache, its tokens, and arguments that cannot be had inside a session."""

import pytest
import torch
from transformers import DynamicCache

from laconic import SessionError
from laconic.cache.cache import CompressedCache
from laconic.calls import cache_of, check_arguments, input_of


@pytest.mark.parametrize("given", [None, DynamicCache()])
def test_an_empty_start_gets_a_new_cache(llama, given):
    cache = cache_of(given, llama.model)
    assert isinstance(cache, CompressedCache) and cache.seen == 0 and cache is not cache_of(given, llama.model)


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

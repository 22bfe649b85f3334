"""Vectors of words: exactly the word's tokens, whatever the tokenizer does with spaces."""

import numpy as np
import pytest
import torch
from helpers.word_tools import SPACE, byte_llama, byte_tokenizer, word_tokenizer

from laconic.methods.lens.tokens_to_thoughts.embeddings import contextual, span, static

WORDS = ("robin", "chair", "is")


def test_8_several_pieces_with_a_space_before_them():
    ids, places = span(byte_tokenizer(), "robin")
    pieces = [byte_tokenizer().convert_ids_to_tokens(ids)[i] for i in places]
    assert pieces == [f"{SPACE}ro", "bi", "n"]
    assert places == list(range(places[0], places[0] + 3))


def test_8_one_token_a_word():
    ids, places = span(word_tokenizer(), "robin")
    assert len(places) == 1 and ids[places[0]] == 4
    with pytest.raises(ValueError, match=r"no token of .* holds ''"):
        span(word_tokenizer(), "")


@torch.no_grad()
def test_8_vectors_are_means_over_the_words_tokens():
    model, reader = byte_llama(), byte_tokenizer()
    table, layers = model.get_input_embeddings().weight, contextual(model, reader, WORDS)
    assert layers.shape == (model.config.num_hidden_layers + 1, 3, model.config.hidden_size)
    for n, word in enumerate(WORDS):
        ids, places = span(reader, word)
        rows = torch.stack([table[ids[i]] for i in places]).mean(0)
        assert np.allclose(static(model, reader, WORDS)[n], rows.numpy(), atol=1e-6)
        hidden = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        for layer, states in enumerate(hidden):
            assert np.allclose(layers[layer, n], states[0, places].mean(0).numpy(), atol=1e-5)
    assert np.allclose(layers[0], static(model, reader, WORDS), atol=1e-6)

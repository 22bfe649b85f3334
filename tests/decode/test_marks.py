"""Where thinking ends, and what the tokens of an answer are."""

import pytest
from helpers.thinking import LATENT, MARK, TOKENIZER, tiny_thinker
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from laconic.decode.marks import end_of_thinking, latent_token, thinking_in
from laconic.errors import SessionError, UnsupportedModelError


def spoken(*words):
    """A tokenizer of these words."""
    table = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<unk>", *words])}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=table, unk_token="<unk>")


def test_the_config_names_the_mark_then_the_vocabulary_does_and_a_given_one_wins():
    model = tiny_thinker()
    assert end_of_thinking(model, TOKENIZER) == (MARK,)
    plain = tiny_thinker(end_of_thinking=None)
    assert end_of_thinking(plain, spoken("a", "</think>")) == (2,)
    assert end_of_thinking(model, TOKENIZER, "wait ;") == tuple(TOKENIZER.convert_tokens_to_ids(["wait", ";"]))


def test_a_model_without_chains_is_refused_and_told_what_to_give():
    with pytest.raises(UnsupportedModelError, match=r"nothing in its vocabulary ends a chain of thought.*give mark="):
        end_of_thinking(tiny_thinker(end_of_thinking=None), spoken("a", "b"))


def test_a_mark_that_cannot_be_written_and_a_missing_tokenizer_are_errors():
    with pytest.raises(SessionError, match="mark='nonsense' is not in this tokenizer's vocabulary"):
        end_of_thinking(tiny_thinker(), TOKENIZER, "nonsense")
    with pytest.raises(SessionError, match="tokenizer="):
        end_of_thinking(tiny_thinker(), None)


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        ([8, 8, MARK, 7, 8], (0, 2, 2, True)),
        ([LATENT, 8, LATENT, MARK, 7], (2, 1, 1, True)),
        ([MARK], (0, 0, 0, True)),
        ([MARK, 7, MARK, 8], (0, 0, 3, True)),  # the first mark counts
        ([8, LATENT, 7], (1, 2, 0, False)),  # without a mark nothing is an answer
        ([], (0, 0, 0, False)),
    ],
)
def test_thinking_is_what_comes_before_the_first_mark(ids, found):
    thinking = thinking_in(ids, (MARK,), LATENT)
    assert (thinking.latent, thinking.written, thinking.answer, thinking.closed) == found
    assert thinking.steps == found[0] + found[1]


def test_a_mark_of_several_tokens_is_found_whole():
    assert thinking_in([1, 2, 1, 3, 9], (1, 3), None) == thinking_in([8, 8, MARK, 9], (MARK,), None)
    assert not thinking_in([1, 2, 1], (1, 3), None).closed


def test_the_token_for_steps_without_words_is_the_tokenizers_own():
    assert latent_token(TOKENIZER) == LATENT and latent_token(spoken("a")) is None

"""Texts in pieces: nothing is lost, and every token is in one piece."""

import pytest
from helpers.text_tools import TEXT, scorer
from hypothesis import given
from hypothesis import strategies as st

from laconic.errors import UnsupportedModelError
from laconic.shortening.pieces import Pieces, chunks, count, sentences, tokens, words

TOKENIZER = scorer().tokenizer
ANY = st.text(st.sampled_from("ab Z9.!?\n\t日🦊ï,;"), min_size=1, max_size=60)


@given(ANY)
def test_pieces_are_the_text(text):
    for pieces in (words(text), words(text, TOKENIZER), tokens(text, TOKENIZER)):
        assert "".join(pieces) == text and len(list(pieces)) == len(pieces) == len(pieces.sizes)


@given(ANY)
def test_every_token_is_counted_once(text):
    total = count(text, TOKENIZER)
    assert sum(words(text, TOKENIZER).sizes) == total
    split = tokens(text, TOKENIZER)
    assert [token for ids in split.ids for token in ids] == TOKENIZER.encode(text, add_special_tokens=False)
    assert sum(split.sizes) == total and min(split.sizes) >= 1


@given(ANY)
def test_sentences_and_chunks_leave_nothing_out(text):
    spans = sentences(text)
    assert "".join(text[a:b] for a, b in spans) == text
    pieces = words(text)
    assert [i for chunk in chunks(pieces, 3) for i in chunk] == list(range(len(pieces)))


def test_words_have_the_blanks_before_them():
    assert list(words(" one  two\n three \n")) == [" one", "  two", "\n three \n"]
    assert words("one two").sizes == (1, 1) and count("one  two ", None) == 2


def test_a_character_of_several_tokens_is_one_piece():
    pieces = tokens("a🦊b", TOKENIZER)
    assert list(pieces) == ["a", "🦊", "b"] and pieces.sizes[1] > 1


def test_sentences_end_at_marks_before_a_blank_and_at_lines():
    text = 'It is 3.5 m. "Really?" he said.\nYes'
    assert [text[a:b] for a, b in sentences(text)] == ["It is 3.5 m. ", '"Really?" ', "he said.\n", "Yes"]


def test_chunks_are_whole_sentences_up_to_a_size():
    pieces = words("a b. c d. e f g h i. j.")
    assert [list(chunk) for chunk in chunks(pieces, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7, 8], [9]]


def test_within_and_touching():
    pieces = Pieces("abcdef", (2, 4, 6), (1, 1, 1))
    assert list(pieces.within(0, 4)) == [0, 1] and list(pieces.within(1, 3)) == [0] and list(pieces.within(3, 6)) == [1, 2]
    assert (
        list(pieces.touching(1, 3)) == [0, 1] and list(pieces.touching(2, 4)) == [1] and list(pieces.touching(5, 6)) == [2]
    )


def test_tokenizers_without_offsets_are_refused():
    class Slow:
        is_fast = False

    with pytest.raises(UnsupportedModelError, match="fast tokenizer"):
        tokens(TEXT, Slow())

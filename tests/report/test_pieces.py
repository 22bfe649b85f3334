"""Pieces of text are whole characters, and joined they are the text."""

import pytest

from laconic.report.pieces import LONGEST, pieces


class Bytes:
    """Every byte is a token; a blank at the beginning is dropped, as some tokenizers do."""

    def decode(self, ids, skip_special_tokens, clean_up_tokenization_spaces):
        return bytes(ids).decode("utf-8", errors="replace").removeprefix(" ")


def test_a_character_of_several_tokens_is_one_piece():
    found = pieces(Bytes(), "aß🦊".encode())
    assert [(p.start, p.stop, p.text) for p in found] == [(0, 1, "a"), (1, 3, "ß"), (3, 7, "🦊")]


@pytest.mark.parametrize("text", ["Grüße aus Köln", "日本 語", "", "a b  c"])
def test_joined_they_are_the_text(text):
    found = pieces(Bytes(), text.encode())
    assert "".join(p.text for p in found) == text
    assert [p.start for p in found[1:]] == [p.stop for p in found[:-1]]


def test_bytes_that_are_no_text_end_after_a_while():
    found = pieces(Bytes(), [0x80] * (2 * LONGEST))
    assert [p.stop - p.start for p in found] == [LONGEST, LONGEST]

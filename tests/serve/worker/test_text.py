"""Text comes out in whole characters and never a piece of a stop string; all pieces together are what the tokenizer says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from laconic.serve.worker.text import TextStream
from laconic.shipped import model_path

TOKENIZER = AutoTokenizer.from_pretrained(model_path("testbed/lm"))


class Bytes:
    """A tokenizer whose tokens are bytes of UTF-8."""

    def decode(self, ids, skip_special_tokens=True):
        return bytes(ids).decode("utf-8", "replace")


def pieces(tokenizer, ids, stops=()):
    stream = TextStream(tokenizer, stops)
    found = [stream.push(token) for token in ids]
    return [*found, stream.finish()], stream


@given(st.text(max_size=40))
def test_pieces_make_up_the_text(text):
    ids = list(text.encode("utf-8", "ignore"))
    given, _ = pieces(Bytes(), ids)
    assert "".join(given) == bytes(ids).decode()


@given(st.lists(st.integers(3, len(TOKENIZER) - 1), max_size=30))
def test_any_tokens_make_up_what_the_tokenizer_decodes(ids):
    given, _ = pieces(TOKENIZER, ids)
    assert "".join(given) == TOKENIZER.decode(ids, skip_special_tokens=True)


def test_a_character_of_several_tokens_comes_whole():
    given, _ = pieces(Bytes(), "aé€😀".encode())
    assert [piece for piece in given if piece] == ["a", "é", "€", "😀"]


def test_bytes_that_never_become_a_character_come_at_the_end():
    given, _ = pieces(Bytes(), b"ab\xe2\x82")
    assert "".join(given) == "ab\ufffd"


@pytest.mark.parametrize(
    ("text", "stops", "want"),
    [
        ("one STOP two", ["STOP"], "one "),
        ("one STO", ["STOP"], "one STO"),
        ("one two", ["two", "one"], ""),
        ("ababac", ["abac"], "ab"),
        ("xaab", ["aab", "ab"], "x"),
        ("no stop here", ["END"], "no stop here"),
    ],
)
def test_an_answer_ends_before_a_stop_string(text, stops, want):
    given, stream = pieces(Bytes(), text.encode(), stops)
    assert "".join(given) == want
    assert stream.stopped is any(stop in text for stop in stops)


@given(st.text("ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_nothing_of_a_stop_string_is_ever_given_out(text, stops):
    given, _ = pieces(Bytes(), text.encode(), stops)
    cuts = [at for stop in stops if (at := text.find(stop)) >= 0]
    first = min(((text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text), default=None)
    out = "".join(given)
    assert out == text if not cuts else len(out) <= min(cuts) or out == text[: first[1]]
    assert not any(stop in out for stop in stops)

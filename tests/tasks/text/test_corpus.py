"""Natural text of the Python installation, one part of it held out."""

import pytest

from laconic.tasks.text.corpus import KINDS, MAX_LINE_CHARS, _clean, common_words, documents, lines


@pytest.mark.parametrize("kind", KINDS)
def test_the_two_parts_never_overlap_and_one_in_eight_is_held_out(kind):
    train, held = documents(kind), documents(kind, held_out=True)
    assert held and not set(train) & set(held)
    if kind == "prose":  # of code there are few documents
        assert 0.08 < len(held) / (len(train) + len(held)) < 0.17
    assert lines(kind) == tuple(line for document in train for line in document)


def test_lines_are_clean():
    text = "a\tb  \n\n-----\n" + "x" * (MAX_LINE_CHARS + 1) + "\n  ==\nend"
    assert _clean(text) == ("a   b", "  ==", "end")


def test_an_unknown_kind():
    with pytest.raises(ValueError, match="kind='poems' is unknown; choose one of prose, code"):
        documents("poems")


def test_common_words_are_short_and_sorted():
    words = common_words()
    assert len(words) > 1000 and list(words) == sorted(words) and all(4 <= len(word) <= 10 for word in words)

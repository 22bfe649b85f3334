"""Passages of a source keep to their documents."""

from laconic.shortening.pieces import words
from laconic.shortening.source import Source


def test_passages_are_of_one_document():
    pieces = words("One two. Three.\n\nFour. Five six.")
    source = Source(pieces, (range(0, 3), range(3, 6)), "", 2, frozenset())
    assert [list(passage) for passage in source.passages(10)] == [[0, 1, 2], [3, 4, 5]]
    assert [list(passage) for passage in source.passages(1)] == [[0, 1], [2], [3], [4, 5]]


def test_an_empty_document_has_none():
    source = Source(words("One."), (range(0, 0), range(0, 1)), "", 1, frozenset())
    assert [list(passage) for passage in source.passages(4)] == [[0]]

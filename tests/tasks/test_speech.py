"""Words of transcripts, and the word error rate."""

import itertools

import pytest

from laconic.tasks.speech import edits, word_error_rate, words


def test_words():
    assert words(" He said: \u201cDon\u2019t!\u201d \u2014 twenty-one_times.") == [
        "he",
        "said",
        "don't",
        "twenty",
        "one",
        "times",
    ]
    assert words("'Tis 3.5 %") == ["tis", "3", "5"]
    assert words("...") == []


def slow_edits(a, b):
    if not a or not b:
        return len(a) + len(b)
    return min(slow_edits(a[1:], b) + 1, slow_edits(a, b[1:]) + 1, slow_edits(a[1:], b[1:]) + (a[0] != b[0]))


def test_edits_are_levenshteins():
    texts = [list(t) for n in range(5) for t in itertools.islice(itertools.product("xyz", repeat=n), 0, 81, 7)]
    for a, b in itertools.product(texts, texts):
        assert edits(a, b) == slow_edits(a, b), (a, b)


def test_all_references_count_together():
    assert word_error_rate([("a b", "a b c"), ("d", "d")]) == pytest.approx(1 / 4)
    assert word_error_rate([("x y z", "a")]) == 3
    assert word_error_rate([("Hello, world!", "hello world")]) == 0


def test_without_words():
    with pytest.raises(ValueError, match="references have no words"):
        word_error_rate([("a", "...")])

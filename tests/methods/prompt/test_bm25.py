"""`bm25` against the formula, and the passages that it keeps."""

import math

import pytest

import laconic
from laconic.methods.prompt.bm25 import bm25, terms

PASSAGES = ["the cat sat on the mat", "the dog barked", "a cat and a dog and a cat", "rain"]


def slow(passage: str, question: str, k1: float, b: float) -> float:
    bags = [terms(text) for text in PASSAGES]
    own, mean, total = terms(passage), sum(map(len, bags)) / len(bags), 0.0
    for word in terms(question):
        n = len([bag for bag in bags if word in bag])
        f = own.count(word)
        total += f and math.log(1 + (4 - n + 0.5) / (n + 0.5)) * f * (k1 + 1) / (f + k1 * (1 - b + b * len(own) / mean))
    return total


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (2.0, 0.0), (0.0, 1.0)])
def test_scores_are_the_formula(k1, b):
    found = bm25([terms(text) for text in PASSAGES], terms("Where is THE cat?"), k1, b)
    expected = [slow(text, "where is the cat", k1, b) if set(terms(text)) & {"the", "cat"} else 0.0 for text in PASSAGES]
    assert found == pytest.approx(expected)


def test_the_passage_with_the_answer_stays():
    text = "".join(f"Room {i} is empty. Nobody has been there. " for i in range(40)) + "The piano is in the cellar. " * 2
    done = laconic.shorten(text, laconic.BM25(keep=0.1, chunk=8), question="Where is the piano?")
    assert "The piano is in the cellar." in done.text and list(done.kept) == sorted(done.kept)


def test_equal_passages_come_in_the_order_of_the_text():
    done = laconic.shorten("One. Two. Three. Four.", laconic.BM25(keep=0.5, chunk=1), question="Why?")
    assert done.text == "One. Two."


@pytest.mark.parametrize("given", [{"chunk": 0}, {"k1": -1}, {"b": 2}])
def test_bad_parameters(given):
    ((name, _),) = given.items()
    with pytest.raises(ValueError, match=f"bm25: {name}="):
        laconic.BM25(**given)

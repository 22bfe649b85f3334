"""Key nouns."""

from laconic import load
from laconic.tasks.text.words import NOUNS


def test_each_is_one_token_of_the_testbed_and_different():
    tokenizer = load("testbed/lm")[1]
    assert len(set(NOUNS)) == len(NOUNS) > 190
    assert all(len(tokenizer.encode(f" {noun}", add_special_tokens=False)) == 1 for noun in NOUNS)

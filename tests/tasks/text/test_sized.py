"""Tasks whose samples are made to a length."""

import pytest

from laconic.tasks.text.sized import SizedTask


class Numbers(SizedTask):
    def score(self, answer, sample, turn=0):
        return 0.0

    def _made(self, number):
        return number, self.tokens, self.tokenizer


def test_an_opened_task_makes_samples_of_its_length():
    assert Numbers("n").opened(tokens=7, tokenizer="words").sample(3) == (3, 7, "words")


def test_without_a_tokenizer_there_is_no_length():
    with pytest.raises(ValueError, match=r"task n: a length and a tokenizer are needed; call opened\(tokens=, tokenizer=\)"):
        Numbers("n").sample(0)

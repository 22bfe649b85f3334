"""Batches of one-token facts: they say what the task says."""

import random

import pytest
import torch
from transformers import AutoTokenizer

from laconic.fit.slots import QUESTIONS, SlotReadings
from laconic.shipped import model_path
from laconic.testbed.facts_model import build_tokenizer

TOKENIZER = build_tokenizer()


def words(ids):
    return TOKENIZER.convert_ids_to_tokens(ids.tolist())


@pytest.mark.parametrize("facts", [8, 16, 40])
def test_answers_are_what_the_context_states(facts):
    reading = SlotReadings(TOKENIZER).draw(random.Random(3), 5, facts)
    assert reading.context.shape == (5, facts) and reading.rest.shape == reading.learned.shape == (5, 1 + 3 * QUESTIONS)
    for row in range(5):
        stated = dict(words(reading.context[row]))  # "c5" -> {"c": "5"}
        assert len(stated) == min(facts, 16)
        joint, *turns = words(reading.rest[row])
        assert joint == "Question:"
        for question, answer, end in zip(turns[::3], turns[1::3], turns[2::3], strict=True):
            assert (answer, end) == (stated[question[0]], "</s>")
        assert words(reading.rest[row][reading.learned[row]])[::2] == turns[1::3]


def test_a_copy_is_the_context_again():
    reading = SlotReadings(TOKENIZER).draw(random.Random(3), 2, 8, copying=True)
    assert words(reading.rest[0])[:2] == ["Question:", "copy?"] and words(reading.rest[0])[-1] == "</s>"
    assert torch.equal(reading.rest[:, 2:-1], reading.context)
    assert reading.learned.sum(1).tolist() == [9, 9]


def test_equal_seeds_give_equal_batches():
    one, two, other = (SlotReadings(TOKENIZER).draw(random.Random(seed), 4, 16) for seed in (1, 1, 2))
    assert torch.equal(one.context, two.context) and torch.equal(one.rest, two.rest)
    assert not torch.equal(one.context, other.context)


def test_another_tokenizer_is_refused():
    with pytest.raises(ValueError, match="these facts are for testbed/facts"):
        SlotReadings(AutoTokenizer.from_pretrained(model_path("testbed/lm")))

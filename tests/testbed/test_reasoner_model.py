"""The reasoner before training: a tokenizer of digits, signs and words."""

import random

import pytest

from laconic.tasks.reasoning.chains import STYLES, chain
from laconic.tasks.reasoning.problems import KINDS
from laconic.testbed.reasoner_model import build_model, build_tokenizer

TOKENIZER = build_tokenizer()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("style", STYLES)
def test_every_problem_can_be_written(kind, style):
    for seed in range(30):
        rng = random.Random(seed)
        problem = KINDS[kind](rng, 8)
        text = f"{problem.question} {STYLES[style]}{chain(problem, style, rng)}###{problem.answer}"
        ids = TOKENIZER.encode(text, add_special_tokens=False)
        assert TOKENIZER.unk_token_id not in ids
        assert TOKENIZER.decode(ids) == "".join(text.split())


def test_digits_and_the_mark_are_tokens_of_their_own():
    assert TOKENIZER.tokenize("7*14=98;###98") == [*"7*14=98;", "###", "9", "8"]


def test_a_prompt_ends_where_thinking_begins():
    chat = [{"role": "user", "content": "Result?"}]
    assert TOKENIZER.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == "<s>Result?<think>"


def test_the_model_has_under_two_million_parameters_and_names_its_mark():
    model = build_model(TOKENIZER)
    assert 1_000_000 < model.num_parameters() < 2_000_000
    assert model.config.end_of_thinking == "###"

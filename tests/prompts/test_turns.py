"""A further turn is what the chat template writes after an answer, without the token that ends the answer."""

import pytest
from helpers.bench_tools import tiny

from laconic.prompts.text import PromptError
from laconic.prompts.turns import Turn, following


@pytest.fixture
def tokenizer():
    return tiny()[1]


def whole(tokenizer, *contents):
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]
    return tokenizer.encode(
        tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True), add_special_tokens=False
    )


@pytest.mark.parametrize("question", ["And for heron?", "user", " assistant ", "-"])
def test_first_turn_answer_and_further_turn_are_the_template_of_all_three(tokenizer, question):
    end = tokenizer.eos_token_id
    turn = following(tokenizer, question, [end])
    opening = whole(tokenizer, "What is the code?")
    answer = tokenizer.encode("4815263", add_special_tokens=False)
    assert turn.end == end
    assert [*opening, *answer, end, *turn.ids] == whole(tokenizer, "What is the code?", "4815263", question)


def test_an_end_of_turn_that_the_user_types_ends_nothing(tokenizer):
    end, typed = tokenizer.eos_token_id, f"a {tokenizer.eos_token} b"
    turn = following(tokenizer, typed, [end])
    assert [*whole(tokenizer, "-"), end, *turn.ids] == whole(tokenizer, "-", "", typed)
    tokenizer.chat_template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} {% endfor %}"
    assert following(tokenizer, typed, [end]) == Turn(None, tokenizer.encode(f" [user] {typed} ", add_special_tokens=False))


@pytest.mark.parametrize(
    ("template", "question", "message"),
    [
        (None, "a", "no chat template"),
        ("{{ messages[0]['content'] }}", "a", "leaves out"),
        ("{{ raise_exception('one question only') }}", "a", "refuses a second question: one question only"),
        ("{{ messages[-1]['content'] }}", " \n", "the question is empty"),
    ],
)
def test_what_cannot_be_asked(tokenizer, template, question, message):
    tokenizer.chat_template = template
    with pytest.raises(PromptError, match=message):
        following(tokenizer, question, [tokenizer.eos_token_id])

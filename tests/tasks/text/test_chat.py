"""Prompts of samples as messages and as token ids."""

import pytest
from helpers.chats import joined, whole_chat

from laconic.tasks.text.chat import gold_ids, messages, prompt_ids, turn_ids
from laconic.tasks.text.retrieval import EVALUATION_SEED, TASKS, make

SEED = EVALUATION_SEED + 77


@pytest.mark.parametrize("task", TASKS)
def test_context_ids_are_a_prefix_that_no_question_changes(task, tokenizer):
    sample = make(task, SEED, 512, tokenizer)
    text = tokenizer.apply_chat_template(messages(sample), tokenize=False, add_generation_prompt=True)
    context, question = prompt_ids(sample, tokenizer, prefix=False)
    assert context + question == tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(context, skip_special_tokens=False) == "<s><|user|>" + sample.context
    with_prefix = prompt_ids(sample, tokenizer)
    assert with_prefix[0] == context
    assert with_prefix[1][: len(question)] == question


def test_turns_appended_one_by_one_give_the_chat(tokenizer):
    sample = make("kvturns", SEED, 512, tokenizer)
    last = len(sample.turns) - 1
    full = joined(prompt_ids(sample, tokenizer, last)) + gold_ids(sample, tokenizer, last)
    assert whole_chat(sample, tokenizer) == full


def test_system_turn_comes_first(tokenizer):
    chat = messages(make("single", SEED, 128, tokenizer), system="Be brief.")
    assert [m["role"] for m in chat] == ["system", "user"]


def test_only_later_turns_are_appended(tokenizer):
    with pytest.raises(ValueError, match="turn=1"):
        turn_ids(make("single", 0, 128, tokenizer), tokenizer, 1)

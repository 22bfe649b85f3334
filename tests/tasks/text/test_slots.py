"""Facts of one token: what a context states, what is asked, and what counts as right."""

import pytest

from laconic.tasks.registry import find_task
from laconic.tasks.text.slots import FRAME, SLOTS, VALUES, Slots, make, vocabulary
from laconic.testbed.facts_model import build_tokenizer


@pytest.mark.parametrize("facts", [1, 3, 8, 16, 17, 64])
def test_every_question_has_one_answer_in_the_context(facts):
    sample = make(1_000_003, facts)
    stated = sample.context.split()
    assert len(stated) == facts and len({fact[0] for fact in stated}) == min(facts, len(SLOTS))
    assert len(sample.turns) == min(4, facts) and len({turn.question for turn in sample.turns}) == len(sample.turns)
    for turn in sample.turns:
        assert {fact[1] for fact in stated if fact[0] == turn.question[0]} == {turn.gold}


def test_slots_values_and_order_vary():
    contexts = [make(seed, 16).context.split() for seed in range(200)]
    assert len({context[0] for context in contexts}) > 70
    counts = [sum(fact[1] == str(value) for context in contexts for fact in context) for value in range(VALUES)]
    assert min(counts) > 300  # 400 expected
    assert make(5, 16) == make(5, 16) != make(6, 16)


def test_samples_fill_the_length_that_is_asked_for():
    tokenizer = build_tokenizer()
    task = find_task("slots").opened(tokens=16 + FRAME, tokenizer=tokenizer)
    sample = task.sample(1_000_000)
    chat = [{"role": "user", "content": f"{sample.context}\n\nQuestion: {sample.question}"}]
    chat.append({"role": "assistant", "content": sample.turns[0].gold})
    assert len(tokenizer.apply_chat_template(chat, tokenize=True)["input_ids"]) == 16 + FRAME
    assert task.several_turns and task.new_tokens == 2


def test_only_the_value_itself_is_right():
    task, sample = Slots(), make(1, 4)
    gold = sample.turns[0].gold
    assert task.score(f" {gold}", sample) == 1 and task.score(f"{gold} {gold}", sample) == 0 and task.score("", sample) == 0


def test_all_words_are_different():
    words = vocabulary()
    assert len(set(words)) == len(words) == 1 + VALUES + len(SLOTS) + len(SLOTS) * VALUES

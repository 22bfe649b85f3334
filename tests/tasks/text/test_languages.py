"""Made-up languages: tables, entropies, texts with needles, and the task about them."""

import math
import random
from collections import Counter

import pytest

from laconic.tasks import find_task
from laconic.tasks.text.languages import (
    CHANCES,
    ENTROPY,
    FRAME,
    KEYS,
    SYMBOLS,
    TAGS,
    TaggedNeedles,
    compose,
    needles_in,
    surprise,
    table,
    vocabulary,
    write,
)
from laconic.testbed.moe_model import build_tokenizer

TOKENIZER = build_tokenizer()


def test_languages_differ_and_their_symbols_follow_as_often_as_they_say():
    assert len({table(i)["a", "b"] for i in range(len(TAGS))}) > 4
    text = write(random.Random(0), 3, 20_000)
    places = Counter(table(3)[a, b].index(c) for a, b, c in zip(text, text[1:], text[2:], strict=False))
    assert [places[i] / 19_998 for i in range(4)] == pytest.approx(CHANCES, abs=0.015)
    assert surprise(text, 3) / 19_998 == pytest.approx(ENTROPY, rel=0.01)
    assert pytest.approx(1.2080, abs=1e-4) == ENTROPY


def test_a_text_is_no_text_of_another_language():
    text = write(random.Random(0), 3, 60)
    with pytest.raises(ValueError, match="not in tuple"):
        surprise(text, 4)


def test_a_context_is_its_language_with_needles_in_between():
    for seed in range(20):
        words, turns = compose(random.Random(seed), 100, 3)
        assert len(words) == 100 and words[0] in TAGS and len(turns) == 3
        symbols = [word for word in words[1:] if word in SYMBOLS]
        assert math.isfinite(surprise(symbols, TAGS.index(words[0]))) and len(symbols) == 100 - 1 - 9
        for turn in turns:
            at = words.index(turn.question.removesuffix("?"))
            assert words[at + 1 : at + 3] == turn.gold.split()
        assert len({turn.question for turn in turns}) == 3
    assert set(words) <= set(vocabulary())


def test_needles_grow_with_the_context():
    assert [needles_in(n) for n in (8, 64, 128, 256, 2000)] == [1, 2, 4, 8, 8]
    assert len(KEYS) >= needles_in(2000)


@pytest.mark.parametrize("tokens", [16, 64, 256])
def test_a_sample_with_a_question_and_its_answer_has_the_length_that_was_asked_for(tokens):
    sample = find_task("tagged").opened(tokens, TOKENIZER).sample(1_000_003)
    turn = sample.turns[0]
    chat = [
        {"role": "user", "content": f"{sample.context} Question: {turn.question}"},
        {"role": "assistant", "content": turn.gold},
    ]
    ids = TOKENIZER.apply_chat_template(chat, return_dict=False)
    assert len(ids) == tokens + 1 and TOKENIZER.unk_token_id not in ids and ids[-1] == TOKENIZER.eos_token_id
    assert len(sample.turns) == min(4, needles_in(tokens - FRAME))


def test_only_both_digits_in_their_order_are_right():
    task = TaggedNeedles(tokens=64, tokenizer=TOKENIZER)
    sample = task.sample(1_000_000)
    a, b = sample.turns[0].gold.split()
    assert task.score(f"{a} {b}", sample) == 1 and task.score(f" {a}  {b} ", sample) == 1
    assert task.score(a, sample) == 0 and task.score(f"{a} {b} {b}", sample) == 0
    assert task.sample(1_000_000) == sample != task.sample(1_000_001)

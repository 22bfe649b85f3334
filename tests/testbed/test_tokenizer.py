"""The tokenizer loses nothing, keeps the tasks' pieces whole, and splits at line breaks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.tasks.text.words import NOUNS
from laconic.testbed.tokenizer import SPECIALS


def plain(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_any_utf8_text_round_trips(tokenizer, text):
    if any(special in text for special in SPECIALS):
        return
    assert tokenizer.decode(plain(tokenizer, text), skip_special_tokens=False) == text


def test_digit_groups_and_nouns_are_single_tokens(tokenizer):
    pieces = [f"{i:03d}" for i in range(1000)] + [f" {noun}" for noun in NOUNS]
    assert [p for p in pieces if len(plain(tokenizer, p)) != 1] == []
    assert [tokenizer.decode([i]) for i in plain(tokenizer, "is 4815263.")] == [
        "is",
        " ",
        "481",
        "526",
        "3",
        ".",
    ]


def test_specials_have_fixed_ids(tokenizer):
    assert tokenizer.convert_tokens_to_ids(list(SPECIALS)) == list(range(6))
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)


@given(
    head=st.text(st.characters(min_codepoint=33, max_codepoint=1000), min_size=1, max_size=30),
    tail=st.text(st.characters(min_codepoint=32, max_codepoint=1000), max_size=30),
    joint=st.sampled_from(["\n", "\n\n", "\n\nQuestion: "]),
)
def test_text_before_a_line_break_is_tokenised_as_if_alone(tokenizer, head, tail, joint):
    # U+0085, U+00A0 and their kin are white space to the pattern; a context is stripped of those.
    if head[-1].isspace() or head[-1] == "\x85":
        return
    whole, alone = plain(tokenizer, head + joint + tail), plain(tokenizer, head)
    assert whole[: len(alone)] == alone


def test_chat_template(tokenizer):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<s><|system|>Be brief.</s><|user|>hi</s><|assistant|>"
    opened = [*chat, {"role": "assistant", "content": "The code"}]
    text = tokenizer.apply_chat_template(opened, tokenize=False, continue_final_message=True)
    assert text == "<s><|system|>Be brief.</s><|user|>hi</s><|assistant|>The code"


@pytest.mark.slow
def test_training_is_reproducible_in_its_parts():
    from laconic.testbed.tokenizer import VOCAB_SIZE, train

    assert len(train()) == VOCAB_SIZE

"""A prompt is cut where a character of a message stands in it, whatever the chat template makes of the message."""

import pytest
from helpers.bench_tools import tiny

from laconic.serve.refusal import Refusal
from laconic.serve.worker.prompts import cut

LINES = "{% for m in messages %}<|{{ m.role }}|>{{ CONTENT }}</s>{% endfor %}<|assistant|>"
PLAIN, TRIMS = LINES.replace("CONTENT", "m.content"), LINES.replace("CONTENT", "m.content | trim")
LOUD = LINES.replace("CONTENT", "m.content | upper")
LAST = "{{ messages[-1].content }}"


@pytest.fixture(scope="module")
def tokenizer():
    return tiny()[1]


def before(tokenizer, template, messages, message, at):
    tokenizer.chat_template = template
    messages = [{"role": role, "content": content} for role, content in messages]
    ids, length = cut(tokenizer, messages, message, at)
    whole = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert ids == tokenizer.encode(whole, add_special_tokens=False) and 0 < length < len(ids)
    return tokenizer.decode(ids[:length])


TWO = [("system", "Be brief."), ("user", "The code is 5.\nWhich code?")]


@pytest.mark.parametrize("template", [PLAIN, TRIMS])
@pytest.mark.parametrize(
    ("message", "at", "want"),
    [
        (1, len("The code is 5."), "<|system|>Be brief.</s><|user|>The code is 5."),
        (1, len(TWO[1][1]), "<|system|>Be brief.</s><|user|>The code is 5.\nWhich code?"),
        (0, len("Be brief."), "<|system|>Be brief."),
    ],
)
def test_everything_up_to_the_cut(tokenizer, template, message, at, want):
    assert before(tokenizer, template, TWO, message, at) == want


def test_a_template_that_strips_what_the_cut_follows(tokenizer):
    messages = [("user", "The code is 5.\n\n")]
    assert before(tokenizer, TRIMS, messages, 0, len(messages[0][1])) == "<|user|>The code is 5."


def test_a_token_that_reaches_beyond_the_cut_is_left_out(tokenizer):
    whole = before(tokenizer, PLAIN, [("user", "The code for falcon is 5.")], 0, len("The code for falco"))
    assert whole.startswith("<|user|>The code for") and "The code for falcon".startswith(whole.removeprefix("<|user|>"))
    assert whole != "<|user|>The code for falcon"


def test_a_text_with_the_marker_in_it_is_cut_before_that(tokenizer):
    messages = [("user", "The code \u2402laconic\u2402 is 5.")]
    assert "<|user|>The code".startswith(before(tokenizer, PLAIN, messages, 0, len(messages[0][1])).rstrip())


@pytest.mark.parametrize("template", [LAST, LOUD])
def test_a_message_that_the_template_leaves_out_or_rewrites(tokenizer, template):
    with pytest.raises(Refusal, match="shows nothing"):
        before(tokenizer, template, TWO, 0, 5)


def test_a_token_is_left_where_the_template_writes_nothing_after_the_cut(tokenizer):
    content = "The code for falcon is 5."
    shown = before(tokenizer, LAST, [("user", content)], 0, len(content))
    assert content.startswith(shown) and len(shown) < len(content)


def test_nothing_before_the_cut(tokenizer):
    with pytest.raises(Refusal, match="shows nothing"):
        before(tokenizer, LAST, [("user", "The code")], 0, 1)

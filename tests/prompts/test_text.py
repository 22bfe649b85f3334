"""Prompts: what is rendered, where it is cut, and that both halves together are the whole."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from laconic.prompts.text import JOINT, PromptError, build
from laconic.tasks.text.chat import prompt_ids
from laconic.tasks.text.retrieval import make

CHAT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TRIMMED = CHAT.replace("m['content']", "m['content'] | trim")
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHAT
UPPER = CHAT.replace("m['content']", "m['content'] | upper")


def tokenizer(template: str | None = CHAT, merges: tuple[tuple[str, str], ...] = ()) -> PreTrainedTokenizerFast:
    """Bytes, plus merges over the end of the context."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", *alphabet, *("".join(m) for m in merges)]
    raw = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=list(merges)))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
    )
    made.chat_template = template
    return made


def test_the_template_is_applied_and_cut_after_the_context():
    t = tokenizer()
    prompt = build(t, "Köln.", "Wo?", answer_prefix="In", system="Kurz.")
    assert prompt.templated and prompt.text == f"<s><|system|>Kurz.</s><|user|>Köln.{JOINT}Wo?</s><|assistant|>In"
    assert t.decode(prompt.context) == "<s><|system|>Kurz.</s><|user|>Köln."
    assert t.decode(prompt.question) == f"{JOINT}Wo?</s><|assistant|>In"
    assert prompt.ids == t.encode(prompt.text, add_special_tokens=False) and prompt.tokens == len(prompt.ids)
    assert build(t, "Köln.", "Wo?").text.endswith("</s><|assistant|>")


def test_without_a_template_it_is_plain_text():
    t = tokenizer(None)
    prompt = build(t, "Köln.", "Wo?", answer_prefix="In", system="Kurz.")
    assert not prompt.templated and prompt.text == f"Kurz.\n\nKöln.{JOINT}Wo?\nAnswer: In"
    assert t.decode(prompt.context) == "Kurz.\n\nKöln."
    assert build(t, "Köln.").text == "Köln." and build(t, "Köln.").question == []


def test_a_token_over_the_end_of_the_context_belongs_to_the_question():
    t = tokenizer(merges=((".", "Ċ"), (".Ċ", "Ċ")))
    prompt = build(t, "One. Two.", "Wo?")
    assert prompt.ids == t.encode(prompt.text, add_special_tokens=False)
    assert t.decode(prompt.context).endswith("Two") and t.decode(prompt.question).startswith(".\n\nQuestion")


@pytest.mark.parametrize("context", ["  \n Köln.", "Köln. \n", "\nKöln\n"])
def test_templates_that_trim(context):
    t = tokenizer(TRIMMED)
    prompt = build(t, context, "Wo?")
    assert t.decode(prompt.ids) == prompt.text and "Köln" in t.decode(prompt.context)
    assert t.decode(prompt.question).strip() == "Question: Wo?</s><|assistant|>"


def test_the_cut_is_the_context_s_even_when_it_is_repeated():
    t = tokenizer()
    prompt = build(t, "ab", "ab", answer_prefix="ab", system="ab")
    assert t.decode(prompt.context) == "<s><|system|>ab</s><|user|>ab"


@pytest.mark.parametrize("text", ["a", "user", "s", "<", "assistant"])
def test_short_texts_are_not_found_in_the_template(text):
    t = tokenizer()
    assert t.decode(build(t, text).context) == f"<s><|user|>{text}"
    assert t.decode(build(t, "Köln", text, system=text).context) == f"<s><|system|>{text}</s><|user|>Köln"


def test_question_or_context_alone():
    t = tokenizer()
    assert build(t, "", "Wo?").context == [] and t.decode(build(t, "", "Wo?").question) == "<s><|user|>Wo?</s><|assistant|>"
    assert t.decode(build(t, "Köln.").question) == "</s><|assistant|>"


def test_specials_of_a_plain_tokenizer():
    """It gets its opening token, and loses a closing one that would end the text."""
    from tokenizers.processors import TemplateProcessing

    t = tokenizer(None)
    t.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    prompt = build(t, "Köln.", "Wo?")
    assert prompt.ids[0] == 1 and 2 not in prompt.ids and t.decode(prompt.context) == "<s>Köln."


@pytest.mark.parametrize(
    ("template", "arguments", "words"),
    [
        (CHAT, {"context": " ", "question": "\n"}, "prompt is empty"),
        (CHAT, {"context": "a\ud800"}, "context is not valid text: character 1"),
        (CHAT, {"context": "a", "question": "\udcff"}, "question is not valid text: character 0"),
        (NO_SYSTEM, {"context": "a", "system": "s"}, "System role not supported"),
        (UPPER, {"context": "a"}, "changes the user's text"),
    ],
)
def test_what_cannot_be_built(template, arguments, words):
    with pytest.raises(PromptError, match=words):
        build(tokenizer(template), **arguments)


def test_it_is_the_prompt_that_the_testbed_was_trained_on():
    from transformers import AutoTokenizer

    from laconic.shipped import model_path

    t = AutoTokenizer.from_pretrained(model_path("testbed/lm"))
    for task in ("multikey", "vartrack"):
        sample = make(task, 1_000_000, 300, t)
        turn = sample.turns[0]
        for prefix in (True, False):
            prompt = build(t, sample.context, turn.question, answer_prefix=turn.prefix if prefix else "")
            assert (prompt.context, prompt.question) == prompt_ids(sample, t, 0, prefix)


HISTORY = ({"role": "user", "content": "Hallo."}, {"role": "assistant", "content": "Ja?"})


def test_earlier_turns_belong_to_the_context():
    t = tokenizer()
    prompt = build(t, "Köln.", "Wo?", system="Kurz.", history=HISTORY)
    opening = "<s><|system|>Kurz.</s><|user|>Hallo.</s><|assistant|>Ja?</s><|user|>"
    assert prompt.text == f"{opening}Köln.{JOINT}Wo?</s><|assistant|>"
    assert t.decode(prompt.context) == f"{opening}Köln."
    alone = build(t, "", "Wo?", system="Kurz.", history=HISTORY)
    assert t.decode(alone.context) == opening and t.decode(alone.question) == "Wo?</s><|assistant|>"


def test_earlier_turns_need_a_template():
    with pytest.raises(PromptError, match="no chat template, so how the model is shown earlier turns"):
        build(tokenizer(None), "Köln.", "Wo?", history=HISTORY)

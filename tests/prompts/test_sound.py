"""Prompts with sound: the processor's own inputs, cut after the last sound or the context, and what is refused."""

import numpy as np
import pytest
import torch
from transformers import Qwen2AudioProcessor

from laconic.errors import MediaError
from laconic.prompts.sound import build, hears
from laconic.prompts.text import PromptError
from laconic.testbed.audio_model import AUDIO, build_processor, build_tokenizer

RATE = 16_000


@pytest.fixture(scope="module")
def processor():
    return build_processor(build_tokenizer())


@pytest.fixture(scope="module")
def published(processor):
    """The same with the chat template that Qwen2-Audio was published with, and its window of 30 s."""
    extractor = type(processor.feature_extractor)(feature_size=8, return_attention_mask=True)
    return Qwen2AudioProcessor(extractor, processor.tokenizer, chat_template=processor.default_chat_template)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", ["processor", "published"])
def test_the_prompt_is_the_processors(request, kind, count):
    reader, sounds = request.getfixturevalue(kind), [noise(1.3), noise(2.1, 1)][:count]
    prompt = build(reader, sounds, "", "How many beeps are there?")
    chat = [
        {"role": "user", "content": [{"type": "audio"}] * count + [{"type": "text", "text": "How many beeps are there?"}]}
    ]
    text = reader.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    expected = reader(text=[text], audio=sounds, sampling_rate=RATE, return_tensors="pt")
    assert prompt.ids == expected["input_ids"][0].tolist() and prompt.text == text
    assert set(prompt.inputs) == {"input_features", "feature_attention_mask"}
    for name, value in prompt.inputs.items():
        assert torch.equal(value, expected[name])
    placeholder = reader.tokenizer.convert_tokens_to_ids(AUDIO)
    assert prompt.context[-1] == placeholder and placeholder not in prompt.question
    assert reader.tokenizer.decode(prompt.question).lstrip().startswith("<|audio_eos|>")


def test_the_cut_comes_after_the_context(processor):
    prompt = build(processor, [noise(1)], "Beeps are short.", "How many?")
    assert processor.tokenizer.decode(prompt.context).endswith("<|audio_eos|>Beeps are short.")
    assert processor.tokenizer.decode(prompt.question).startswith("\n\nQuestion: How many?")
    opened = build(processor, [noise(1)], "", "How many?", answer_prefix="There are", system="Be brief.")
    assert processor.tokenizer.decode(opened.question).endswith("There are")
    assert processor.tokenizer.decode(opened.context).startswith("<s><|system|>Be brief.</s>")


def test_text_alone_needs_no_sound(processor):
    prompt = build(processor, [], "Beeps are short.", "How many?")
    assert not prompt.inputs and processor.tokenizer.decode(prompt.ids).startswith("<s><|user|>Beeps are short.")


def test_sound_that_does_not_fit_the_window_is_refused(processor, published):
    with pytest.raises(MediaError, match=r"sound 2 lasts 8.50 s; this model hears 0.14 to 8 s at a time. Cut it"):
        build(processor, [noise(1), noise(8.5)], "", "How many?")
    with pytest.raises(MediaError, match=r"sound 1 lasts 0.05 s; .* Give a longer one"):
        build(processor, [noise(0.05)], "", "How many?")
    assert build(published, [noise(30)], "", "How many?").inputs["feature_attention_mask"].sum() == 3000
    with pytest.raises(MediaError, match=r"hears 0\.07 to 30 s"):
        build(published, [noise(30.1)], "", "How many?")


def test_what_takes_no_sound_is_refused(processor):
    assert hears(processor) and not hears(processor.tokenizer)
    with pytest.raises(PromptError, match="does not prepare sound"):
        build(processor.tokenizer, [noise(1)], "", "How many?")
    deaf = build_processor(build_tokenizer())
    deaf.chat_template = "{% for m in messages %}{{ m['role'] }}{% endfor %}"
    with pytest.raises(PromptError, match="wrote 0 places for 1 sounds"):
        build(deaf, [noise(1)], "", "How many?")
    deaf.chat_template = None
    with pytest.raises(PromptError, match="no chat template"):
        build(deaf, [noise(1)], "", "How many?")

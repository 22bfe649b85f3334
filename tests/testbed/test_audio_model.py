"""The model's class and size, its positions, the tokenizer's round trip, and a prompt made by the processor."""

import math

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor, Qwen2Model

from laconic.tasks.audio.questions import QUESTIONS, pose
from laconic.tasks.audio.sounds import LONGEST, RATE
from laconic.testbed.audio_model import (
    AUDIO,
    FRAMES,
    MELS,
    TOKEN_SECONDS,
    VOCAB_SIZE,
    build_model,
    build_processor,
    build_tokenizer,
    sinusoids,
)


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processor")
    build_processor(build_tokenizer()).save_pretrained(folder)
    return AutoProcessor.from_pretrained(folder)


def test_it_is_a_small_qwen2_audio():
    model = build_model()
    assert isinstance(model, Qwen2AudioForConditionalGeneration) and isinstance(model.model.language_model, Qwen2Model)
    assert 1.5e6 <= model.num_parameters() <= 4e6
    assert model.config.text_config.num_attention_heads > model.config.text_config.num_key_value_heads
    assert FRAMES == 400 and TOKEN_SECONDS * 100 == LONGEST


def test_positions_of_the_encoder_are_whispers():
    table = sinusoids(7, 6)
    for place in range(7):
        for i in range(3):
            angle = place * 10_000 ** (-i / 2)
            assert table[place, i] == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[place, 3 + i] == pytest.approx(math.cos(angle), abs=1e-5)
    weight = build_model().model.audio_tower.embed_positions.weight
    assert torch.equal(weight, sinusoids(200, 128)) and not weight.requires_grad


def test_questions_are_words_and_digits_stand_alone():
    tokenizer = build_tokenizer()
    assert len(tokenizer) <= VOCAB_SIZE
    for kind in QUESTIONS:
        _, q = pose(kind, 11)
        assert tokenizer.decode(tokenizer.encode(q.text, add_special_tokens=False)) == q.text
    spelt = tokenizer.encode("40715", add_special_tokens=False)
    assert [tokenizer.decode([i]) for i in spelt] == list("40715")
    other = "naïve Größe? 12.5 % of «Whisper»\n"
    assert tokenizer.decode(tokenizer.encode(other, add_special_tokens=False)) == other


@pytest.mark.parametrize("seconds", [0.4, 3.2, 8.0])
def test_the_processor_writes_one_placeholder_for_each_audio_token(processor, seconds):
    assert isinstance(processor, Qwen2AudioProcessor)
    wave = np.random.default_rng(0).standard_normal(round(seconds * RATE)).astype(np.float32)
    chat = [{"role": "user", "content": [{"type": "text", "text": "How many?"}, {"type": "audio"}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    assert text == "<s><|user|><|audio_bos|><|AUDIO|><|audio_eos|>How many?</s><|assistant|>"
    inputs = processor(text=text, audio=[wave], sampling_rate=RATE, return_tensors="pt")
    placeholder = processor.tokenizer.convert_tokens_to_ids(AUDIO)
    assert (inputs["input_ids"] == placeholder).sum() == round(seconds / TOKEN_SECONDS)
    assert (
        inputs["input_features"].shape == (1, MELS, FRAMES) and inputs["input_ids"][0, 0] == processor.tokenizer.bos_token_id
    )
    assert build_model()(**inputs).logits.shape[-1] == VOCAB_SIZE

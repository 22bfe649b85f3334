"""A batch of questions is each question alone, padded on the left."""

import numpy as np
import pytest
import torch
from PIL import Image

from laconic import UnsupportedModelError
from laconic.errors import MediaError
from laconic.prompts import sound
from laconic.prompts.batch import encode, encode_sounds, turn
from laconic.testbed import audio_model
from laconic.testbed.vlm_model import build_processor, build_tokenizer

COLOURS = ("red", "blue")
QUESTIONS = ("How many shapes are there?", "Is there a circle?")


@pytest.fixture(scope="module")
def processor():
    return build_processor(build_tokenizer())


def test_rows_are_the_questions_alone(processor):
    images = [Image.new("RGB", (20, 30), colour) for colour in COLOURS]
    found = encode(processor, QUESTIONS, images)
    for b, (question, image) in enumerate(zip(QUESTIONS, images, strict=True)):
        alone = processor(images=[image], text=[turn(processor, question)], return_tensors="pt")
        row, mask = found["input_ids"][b], found["attention_mask"][b]
        assert torch.equal(row[mask == 1], alone["input_ids"][0]) and bool((mask.diff() >= 0).all())
        assert torch.equal(found["pixel_values"][b], alone["pixel_values"][0])


def test_a_tokenizer_shows_no_images(processor):
    with pytest.raises(UnsupportedModelError, match="does not prepare images"):
        encode(processor.tokenizer, QUESTIONS, [])


def test_rows_with_sound_are_the_prompts_alone(processor):
    hearing = audio_model.build_processor(audio_model.build_tokenizer())
    sounds = [
        np.random.default_rng(i).uniform(-0.5, 0.5, length).astype(np.float32) for i, length in enumerate((9000, 40000))
    ]
    found = encode_sounds(hearing, QUESTIONS, sounds)
    for b, question in enumerate(QUESTIONS):
        alone = sound.build(hearing, [sounds[b]], "", question)
        row, mask = found["input_ids"][b], found["attention_mask"][b]
        assert row[mask == 1].tolist() == alone.ids and bool((mask.diff() >= 0).all())
        assert torch.equal(found["input_features"][b], alone.inputs["input_features"][0])
        assert torch.equal(found["feature_attention_mask"][b], alone.inputs["feature_attention_mask"][0])
    with pytest.raises(UnsupportedModelError, match="does not prepare sound"):
        encode_sounds(processor, QUESTIONS, sounds)
    with pytest.raises(MediaError, match=r"sound 2 lasts 9\.00 s"):
        encode_sounds(hearing, QUESTIONS, [sounds[0], np.zeros(9 * 16_000, np.float32)])

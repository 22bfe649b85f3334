"""A batch of questions is each question alone, padded on the left."""

import pytest
import torch
from PIL import Image

from laconic import UnsupportedModelError
from laconic.prompts.batch import encode, turn
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

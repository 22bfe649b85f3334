"""The model's class and size, the tokenizer's round trip, and a prompt made by the processor."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, CLIPVisionModel, LlamaModel, LlavaForConditionalGeneration

from laconic.tasks.scenes.questions import QUESTIONS, pose
from laconic.tasks.scenes.scenes import render
from laconic.testbed.scene_batch import pixels_of
from laconic.testbed.vlm_model import IMAGE, VISUAL_TOKENS, VOCAB_SIZE, build_model, build_processor, build_tokenizer


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processor")
    build_processor(build_tokenizer()).save_pretrained(folder)
    return AutoProcessor.from_pretrained(folder)


def test_it_is_a_small_llava():
    model = build_model()
    assert isinstance(model, LlavaForConditionalGeneration)
    assert isinstance(model.model.vision_tower, CLIPVisionModel) and isinstance(model.model.language_model, LlamaModel)
    assert 3e6 <= model.num_parameters() <= 15e6
    assert 144 <= VISUAL_TOKENS <= 256
    assert model.config.text_config.num_attention_heads > model.config.text_config.num_key_value_heads
    assert model.config.vision_feature_layer == -2 and model.config.vision_feature_select_strategy == "default"


def test_questions_are_words_and_signs_are_letters():
    tokenizer = build_tokenizer()
    assert len(tokenizer) <= VOCAB_SIZE
    for kind in QUESTIONS:
        _, q = pose(kind, 11)
        ids = tokenizer.encode(q.text, add_special_tokens=False)
        assert len(ids) == len(q.text.split()) + 1
        assert tokenizer.decode(ids) == q.text
    spelt = tokenizer.encode("ZUK407", add_special_tokens=False)
    assert [tokenizer.decode([i]) for i in spelt] == list("ZUK407")
    other = "naïve Größe? 12.5 % of «LLaVA»\n"
    assert tokenizer.decode(tokenizer.encode(other, add_special_tokens=False)) == other


def test_the_processor_writes_one_placeholder_for_each_visual_token(processor):
    image = render(pose("count", 3)[0])
    chat = [{"role": "user", "content": [{"type": "text", "text": "How many?"}, {"type": "image"}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    assert text == f"<s><|user|>{IMAGE}How many?</s><|assistant|>"
    inputs = processor(images=Image.fromarray(image), text=text, return_tensors="pt")
    image_id = processor.tokenizer.convert_tokens_to_ids(IMAGE)
    assert (inputs["input_ids"] == image_id).sum() == VISUAL_TOKENS
    assert inputs["input_ids"][0, 0] == processor.tokenizer.bos_token_id
    # The training code scales images itself; it must do what the processor does.
    torch.testing.assert_close(inputs["pixel_values"], pixels_of([image]), atol=1e-6, rtol=0)


def test_a_larger_image_is_resized(processor):
    image = Image.fromarray(np.full((192, 192, 3), 255, np.uint8))
    inputs = processor(images=image, text=f"{IMAGE}Is there a red star?", return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 96, 96)
    assert inputs["pixel_values"].min() == 1.0

"""A question in a packed batch is answered as it is alone: same logits as transformers' own forward on its own prompt."""

import random

import pytest
import torch
from PIL import Image

from laconic.tasks.scenes.questions import QUESTIONS, dialogue
from laconic.tasks.scenes.scenes import COLOURS, KINDS, draw, render
from laconic.testbed.scene_batch import KIND_NAMES, Batches
from laconic.testbed.vlm_model import build_model, build_processor, build_tokenizer


@pytest.fixture(scope="module")
def processor():
    return build_processor(build_tokenizer())


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model().eval()


@pytest.fixture(scope="module")
def scenes():
    return [draw(random.Random(seed)) for seed in (1, 2)]


@pytest.fixture(scope="module")
def asked(scenes):
    return [dialogue(random.Random(i), scene, 3, dict.fromkeys(QUESTIONS, 1.0)) for i, scene in enumerate(scenes)]


def packed_logits(model, batch):
    """Logits at the token before each answer token, from inputs put together by hand."""
    with torch.no_grad():
        words = model.get_input_embeddings()(batch.ids)
        visual = model.get_image_features(
            pixel_values=batch.pixels, vision_feature_layer=-2, vision_feature_select_strategy="default"
        )
        stream = torch.cat([words[:, :2], torch.stack(list(visual.pooler_output)), words[:, 2:]], 1)
        bias = torch.zeros(batch.mask.shape).masked_fill(~batch.mask, float("-inf"))
        bias.masked_fill_(~batch.mask.any(-1, keepdim=True), 0.0)
        hidden = model.model.language_model(
            inputs_embeds=stream, attention_mask=bias, position_ids=batch.positions
        ).last_hidden_state
        return model.lm_head(hidden.flatten(0, 1)[batch.at])


def own_logits(model, processor, scene, turns):
    """Logits for the answer of the last of ``turns``, each of the others answered before it."""
    text = "<s><|user|><image>" + "<|user|>".join(f"{q.text}</s><|assistant|>{q.answer}</s>" for q in turns)
    inputs = processor(images=Image.fromarray(render(scene)), text=text, return_tensors="pt")
    length = len(processor.tokenizer.encode(turns[-1].answer, add_special_tokens=False)) + 1
    with torch.no_grad():
        return model(**inputs).logits[0, -length - 1 : -1], inputs["input_ids"][0, -length:]


@pytest.mark.parametrize("chained", [False, True])
def test_packed_questions_are_answered_as_in_their_own_prompt(model, processor, scenes, asked, chained):
    batch = Batches(processor.tokenizer).collate(scenes, asked, [chained, chained])
    logits = packed_logits(model, batch)
    number = 0
    for scene, questions in zip(scenes, asked, strict=True):
        for i, question in enumerate(questions):
            expected, ids = own_logits(model, processor, scene, questions[: i + 1] if chained else [question])
            mine = batch.question == number
            assert batch.targets[mine].tolist() == ids.tolist()
            assert KIND_NAMES[batch.kinds[number]] == question.kind
            torch.testing.assert_close(logits[mine], expected, atol=2e-5, rtol=1e-4)
            number += 1
    assert number == len(batch.kinds)


def test_labels_say_which_shapes_there_are(processor, scenes, asked):
    batch = Batches(processor.tokenizer).collate(scenes, asked, [False, True])
    for scene, row in zip(scenes, batch.names, strict=True):
        there = {f"{list(COLOURS)[i % len(COLOURS)]} {KINDS[i // len(COLOURS)]}" for i in row.nonzero().flatten().tolist()}
        assert there == {shape.name for shape in scene.shapes}


def test_no_kinds_give_images_alone(processor):
    batch = Batches(processor.tokenizer).draw(random.Random(0), 2, 4, {})
    assert batch.pixels.shape == (2, 3, 96, 96) and batch.ids.shape == (2, 2) and not len(batch.targets)

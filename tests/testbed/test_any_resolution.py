"""The any-resolution model holds the same weights, its views are the processor's, and a batch agrees with its forward."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from laconic.tasks.scenes.questions import pose
from laconic.tasks.scenes.scenes import draw, patch_labels, render
from laconic.testbed.any_resolution import (
    IGNORED,
    LARGE,
    VIEWS,
    VISUAL_TOKENS,
    any_resolution,
    any_resolution_processor,
    cut,
    view_labels,
    view_scenes,
)
from laconic.testbed.scene_batch import pixels_of
from laconic.testbed.train_vlm import STAGES, Trainer, parser
from laconic.testbed.vlm_model import IMAGE, build_model, build_tokenizer


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    any_resolution_processor(build_tokenizer()).save_pretrained(folder)
    return AutoProcessor.from_pretrained(folder)


def test_only_the_newline_is_new():
    small = build_model()
    large = any_resolution(small)
    assert isinstance(large, LlavaNextForConditionalGeneration)
    assert large.num_parameters() - small.num_parameters() == small.config.text_config.hidden_size
    for name, tensor in small.state_dict().items():
        assert torch.equal(large.state_dict()[name], tensor)
    assert large.lm_head.weight is large.get_input_embeddings().weight


def test_views_and_token_count_are_the_processors(processor):
    scene, question = pose("reading", 4, LARGE)
    image = render(scene)
    text = f"<s><|user|>{IMAGE}{question.text}</s><|assistant|>"
    inputs = processor(images=Image.fromarray(image), text=text, return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, VIEWS, 3, 96, 96)
    torch.testing.assert_close(inputs["pixel_values"], pixels_of([cut(image)]), atol=1e-6, rtol=0)
    image_id = processor.tokenizer.convert_tokens_to_ids(IMAGE)
    assert (inputs["input_ids"] == image_id).sum() == VISUAL_TOKENS == 744


def test_labels_of_the_crops_are_those_of_the_canvas():
    scene = draw(random.Random(2), LARGE)
    labels, whole = view_labels(scene), patch_labels(scene)
    assert (labels[0] == IGNORED).all()
    for i in range(4):
        row, column = divmod(i, 2)
        np.testing.assert_array_equal(labels[1 + i], whole[:, 12 * row : 12 * row + 12, 12 * column : 12 * column + 12])
    parts = view_scenes(scene)
    assert parts[0] == scene and sorted(s.name for p in parts[1:] for s in p.shapes) == sorted(s.name for s in scene.shapes)
    for part, label in zip(parts[1:], labels[1:], strict=True):
        assert (label[0] > 0).sum() == len(part.shapes)


def test_a_training_step_answers_as_the_model_itself_does(tmp_path, processor):
    """The loss of a batch of one question equals the cross-entropy of transformers' own forward."""
    small = Trainer(parser().parse_args(["--out", str(tmp_path / "small"), "--rows", "1", "--no-bf16"]))
    small.save()
    settings = ["--out", str(tmp_path / "large"), "--large", "--start", str(tmp_path / "small"), "--rows", "1"]
    trainer = Trainer(parser().parse_args([*settings, "--questions", "1", "--no-bf16", "--help-weight", "0"]))
    assert trainer.state["stage"] == len(STAGES) - 1
    scene, question = pose("colour", 1, LARGE)
    batch = trainer.batches.collate([scene], [[question]], [False])
    with torch.no_grad():
        loss, right, *_ = trainer.losses(batch)
        text = f"<s><|user|>{IMAGE}{question.text}</s><|assistant|>{question.answer}</s>"
        inputs = processor(images=Image.fromarray(render(scene)), text=text, return_tensors="pt")
        trainer.model.set_attn_implementation("sdpa")
        logits = trainer.model(**inputs).logits[0]
    ids = inputs["input_ids"][0]
    n = len(batch.targets)
    assert batch.targets.tolist() == ids[-n:].tolist()
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits[-n - 1 : -1], ids[-n:]), atol=1e-5, rtol=1e-4)
    assert right is not None and right.tolist() == [logits[-n - 1 : -1].argmax(-1).tolist() == ids[-n:].tolist()]

"""`laconic run` with the real processors of all seven vision classes: prompts as transformers makes them, images, frames."""

import importlib.util

import pytest
from helpers.image_files import noise
from transformers import AutoProcessor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("torchvision") is None,
        reason="these processors need torchvision, which beside a torch without CUDA breaks imports: `make processors`",
    ),
]
NAMES = ("llava", "llava_next", "llava_onevision", "internvl", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")
QUESTION = "w5 w6 w7"


@pytest.fixture
def files(tmp_path):
    """Images of several sizes."""
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for i, path in enumerate(paths):
        noise(90 + 20 * i, 60, i).save(path)
    return [str(path) for path in paths]


def expected(folder, count):
    """Ids of the prompt by the processor's own chat template, and how many of them stand for images."""
    processor = AutoProcessor.from_pretrained(folder)
    images = [{"type": "image", "image": noise(90 + 20 * i, 60, i)} for i in range(count)]
    chat = [{"role": "user", "content": [*images, {"type": "text", "text": QUESTION}]}]
    found = processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    return found["input_ids"].shape[1]


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("name", NAMES)
def test_images(folders, run, files, name, count):
    folder = folders(name)
    given = [option for file in files[:count] for option in ("--image", file)]
    found = run("--model", folder, *given, "-q", QUESTION, "--method", "random_visual", "--keep", 0.5)
    assert found["prompt"]["tokens"] == expected(folder, count) and len(found["images"]) == count
    left = sum(found["visual"].values()) / len(found["visual"]) / found["visual_in"]
    assert left == pytest.approx(0.5, abs=0.1) and found["tokens_out"] == 3


@pytest.mark.parametrize("name", NAMES)
def test_frames_of_a_video(folders, run, files, name):
    """Every frame is an image; uncompressed answers are those of the stock model."""
    folder = files[0].rpartition("/")[0]
    found = run("--model", folders(name), "--video", folder, "--frames", 3, "-q", QUESTION, "--compare")
    assert len(found["images"]) == 3 and found["compared"]["agree"]


def test_several_images_of_a_onevision_prompt_are_one_view_each(folders, run, files):
    """16 tokens and a line end each, where the only image of a prompt has crops besides."""
    folder = folders("llava_onevision")
    alone = run("--model", folder, "--image", files[0], "-q", QUESTION)
    several = run("--model", folder, "--image", files[0], "--image", files[1], "-q", QUESTION)
    assert several["visual_in"] == 2 * 16 < alone["visual_in"]

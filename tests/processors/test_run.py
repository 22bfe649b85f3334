"""`laconic run` with the real processors of all seven vision classes: prompts as transformers makes them, images, frames."""

import importlib.util

import pytest
from helpers.image_files import noise
from helpers.vision_zoo import VIDEO
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
def test_frames_as_images(folders, run, files, name):
    """Every frame is an image; uncompressed answers are those of the stock model."""
    folder = files[0].rpartition("/")[0]
    found = run("--model", folders(name), "--video", folder, "--as-images", "--frames", 3, "-q", QUESTION, "--compare")
    assert len(found["images"]) == 3 and found["compared"]["agree"]


@pytest.fixture
def film(tmp_path):
    """Six frames that last unequally long."""
    from helpers.films import film, greys

    return film(tmp_path / "film.mp4", greys(20, 60, 100, 140, 180, 220), times=[0, 900, 2100, 3000, 4500, 5000])


@pytest.mark.parametrize("frames", [2, 3, 4])
@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_a_video_goes_through_the_models_own_video_input(folders, run, film, name, frames):
    """As many tokens as the processor itself makes of these frames; uncompressed answers are those of the stock model."""
    from laconic.cli.clip import clip_of
    from laconic.media import load_frames

    found = run("--model", folders(name), "--video", film, "--frames", frames, "-q", QUESTION, "--compare")
    assert found["compared"]["agree"] and len(found["images"]) == frames
    clip, _ = clip_of(list(load_frames(film, frames)))
    chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTION}]}]
    processor = AutoProcessor.from_pretrained(folders(name))
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    wanted = processor(
        text=[text],
        videos=[list(clip.frames)],
        video_metadata=[clip.metadata()],
        do_sample_frames=False,
        return_tensors="pt",
    )
    assert found["prompt"]["tokens"] == wanted["input_ids"].shape[1]
    assert found["visual_in"] == int((wanted["input_ids"] == VIDEO).sum()) - (name == "llava_onevision")  # its line end


def test_a_video_of_one_frame_is_an_image(folders, run, film):
    """Qwen3-VL's video processor takes no single frame."""
    found = run("--model", folders("qwen3_vl"), "--video", film, "--frames", 1, "-q", QUESTION)
    assert found["tokens_out"] == 3 and len(found["images"]) == 1
    assert any("one frame is shown as an image" in warning for warning in found["warnings"])


@pytest.mark.parametrize("method", ["evs", "vidcom2", "fastvid", "cdpruner", "dart", "random_visual"])
@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "qwen3_vl"])
def test_methods_on_a_video(folders, run, film, name, method):
    found = run("--model", folders(name), "--video", film, "--frames", 6, "-q", QUESTION, "--method", method, "--keep", 0.9)
    left = sum(found["visual"].values()) / len(found["visual"]) / found["visual_in"]
    assert left == pytest.approx(0.9, abs=0.07) and found["tokens_out"] == 3


def test_several_images_of_a_onevision_prompt_are_one_view_each(folders, run, files):
    """16 tokens and a line end each, where the only image of a prompt has crops besides."""
    folder = folders("llava_onevision")
    alone = run("--model", folder, "--image", files[0], "-q", QUESTION)
    several = run("--model", folder, "--image", files[0], "--image", files[1], "-q", QUESTION)
    assert several["visual_in"] == 2 * 16 < alone["visual_in"]

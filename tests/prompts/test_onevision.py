"""LLaVA-OneVision's processor without torchvision: what it makes, how it is saved and loaded, and what it refuses."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from laconic.errors import MediaError
from laconic.loading import load_reader
from laconic.prompts.onevision import FrameProcessor, OnevisionProcessor, load_onevision
from laconic.testbed.video_model import FRAME_TOKENS, build_processor, build_tokenizer


@pytest.fixture(scope="module")
def processor():
    return build_processor(build_tokenizer())


def clip(frames, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, 48, 48, 3), dtype=np.uint8)


def test_frames_are_scaled_and_nothing_else(processor):
    frames = clip(4)
    given = processor(text="<video>What?", videos=[list(frames)], return_tensors="pt")
    expected = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    torch.testing.assert_close(given["pixel_values_videos"][0], expected, atol=1e-6, rtol=0)
    assert (given["input_ids"] == processor.video_token_id).sum() == 4 * FRAME_TOKENS + 1


def test_other_sizes_are_resized_as_images_are(processor):
    from PIL import Image

    frame = Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8))
    given = processor.video_processor([[frame, frame]])["pixel_values_videos"]
    small = np.asarray(frame.resize((48, 48), Image.Resampling.BICUBIC))
    expected = torch.from_numpy(small.copy()).permute(2, 0, 1).float() / 127.5 - 1
    torch.testing.assert_close(given[0, 0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(given[0, 0], given[0, 1])


def test_it_is_saved_as_the_stock_processor_and_loaded(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava_onevision"}))
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["processor_class"] == "LlavaOnevisionProcessor"
    assert saved["video_processor"]["video_processor_type"] == "LlavaOnevisionVideoProcessor"
    again = load_onevision(str(tmp_path))
    assert again.chat_template == processor.chat_template and again.num_image_tokens == processor.num_image_tokens
    frames = list(clip(4))
    first, second = (one(text="<video>What?", videos=[frames], return_tensors="pt") for one in (processor, again))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="with torchvision the stock processor is loaded")
def test_load_takes_it_where_the_stock_one_cannot_be_made(processor, tmp_path):
    from laconic.testbed.video_model import empty_model

    processor.save_pretrained(tmp_path)
    empty_model(processor.tokenizer).config.save_pretrained(tmp_path)
    reader = load_reader(str(tmp_path))
    assert isinstance(reader, OnevisionProcessor) and isinstance(reader.video_processor, FrameProcessor)


def test_clips_of_different_lengths_are_no_batch(processor):
    with pytest.raises(MediaError, match="clips of 2, 3 frames in one batch"):
        processor.video_processor([list(clip(2)), list(clip(3))])


def test_sampling_is_refused(processor):
    with pytest.raises(ValueError, match="do_sample_frames=True needs torchvision"):
        processor.video_processor([list(clip(2))], do_sample_frames=True)

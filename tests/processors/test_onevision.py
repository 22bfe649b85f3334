"""LLaVA-OneVision's processor without torchvision makes what the one with it makes, and loads what that one saved."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from helpers.real_processors import processor
from PIL import Image

from laconic.prompts.onevision import load_onevision

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("torchvision") is None, reason="the stock processor needs torchvision: `make processors`"),
]


@pytest.mark.parametrize(("size", "limit"), [((32, 32), 1e-6), ((60, 90), 2.5 / 127.5)])
def test_frames_and_ids_are_those_of_the_stock_processor(tmp_path, size, limit):
    stock = processor("llava_onevision")
    stock.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava_onevision"}))
    own = load_onevision(str(tmp_path))
    draw = np.random.default_rng(0)
    # smooth, as frames are: the two ways of resizing round differently, most where neighbours differ most
    frames = [Image.fromarray(draw.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize(size[::-1]) for _ in range(3)]
    given = {"text": ["w3 <video> w5"], "videos": [frames], "do_sample_frames": False, "return_tensors": "pt"}
    first, second = stock(**given), own(**given)
    assert torch.equal(first["input_ids"], second["input_ids"])
    torch.testing.assert_close(first["pixel_values_videos"], second["pixel_values_videos"], atol=limit, rtol=0)

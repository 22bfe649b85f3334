"""Frames that are encoded a few at a time."""

import pytest
import torch
from helpers.streaming_tools import video_testbed
from helpers.vision_zoo import CASES

from laconic import UnsupportedModelError
from laconic.families.vision.frames import encode_frames


def test_frames_are_what_the_model_makes_of_the_whole_video():
    model, _ = video_testbed()
    pixels = torch.randn(2, 5, 3, 48, 48)
    want = model.model.get_video_features(pixels).pooler_output
    parts = [encode_frames(model, pixels[:, :3]), encode_frames(model, pixels[:, 3:])]
    tokens = torch.cat([part.tokens for part in parts], 1)
    assert tokens.shape == (2, 5, 3, 3, 32)
    torch.testing.assert_close(tokens.flatten(1, 3), want[:, :-1], rtol=1e-4, atol=1e-5)
    assert torch.equal(parts[0].closing[0], want[0, -1])
    own = model.model.vision_tower(pixels.flatten(0, 1), output_hidden_states=True).hidden_states
    torch.testing.assert_close(parts[1].states[2], own[2].unflatten(0, (2, 5))[:, 3:], rtol=1e-4, atol=1e-5)


def test_a_model_of_another_class_is_refused():
    with pytest.raises(UnsupportedModelError, match="model does not encode the frames of a video one by one"):
        encode_frames(CASES["llava"].build(), torch.zeros(1, 2, 3, 32, 32))

"""Frames at equal distances, and a part of one where the budget is no whole number of frames."""

import pytest
import torch
from helpers.video_tools import inputs, random_video_model

import laconic
from laconic import BudgetError
from laconic.methods.tokens.uniform_frames import UniformFrames, middles


def run(model, given, **options):
    with laconic.compress(model, UniformFrames(**options)) as session, torch.no_grad():
        session.logits = model(**given).logits[:, -1]
    return session


@pytest.fixture(scope="module")
def model():
    return random_video_model()


def frames_of(session, start=3, size=16, frames=9):
    stream = session.trace.events[0].stream[0].tolist()
    return [sum(start + size * t <= at < start + size * (t + 1) for at in stream) for t in range(frames)]


def test_places_are_the_middles_of_equal_parts():
    for length in (1, 4, 9, 32):
        for count in range(1, length + 1):
            expected = [int((i + 0.5) * length / count) for i in range(count)]
            assert middles(length, count).tolist() == expected and len(set(expected)) == count


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (48, [0, 16, 0, 0, 16, 0, 0, 16, 0]),
        (16, [0, 0, 0, 0, 16, 0, 0, 0, 0]),
        (24, [0, 0, 16, 0, 0, 0, 8, 0, 0]),
        (4, [0, 0, 0, 0, 4, 0, 0, 0, 0]),
    ],
)
def test_whole_frames_and_a_part(model, tokens, expected):
    assert frames_of(run(model, inputs([(3, 9)]), tokens=tokens)) == expected


def test_fewer_frames_sampled_are_the_same_prompt(model):
    """Renumbered, the model reads what it reads when only these frames are given."""
    given = inputs([(3, 9)])
    fewer = inputs([(3, 3)])
    pixels = given["pixel_values_videos"][:, [1, 4, 7]]
    fewer["pixel_values_videos"] = pixels
    fewer["input_ids"] = torch.cat([given["input_ids"][:, : 3 + 48], given["input_ids"][:, 3 + 144 :]], 1)
    fewer["attention_mask"] = torch.ones_like(fewer["input_ids"])
    expected = model(**fewer).logits[:, -1]
    torch.testing.assert_close(run(model, given, tokens=48).logits, expected, atol=1e-5, rtol=1e-5)


def test_each_row_keeps_its_share(model):
    session = run(model, inputs([(3, 9), (8, 4)]), keep=1 / 3)
    assert [frames_of(session)[t] for t in (1, 4, 7)] == [16] * 3 and session.stats.visual[0] == 48


def test_protected_tokens_are_not_lost(model):
    with pytest.raises(BudgetError, match="protected tokens lie in frames"):
        run(model, inputs([(3, 9)]), tokens=48, protect=(4, 5))


@pytest.mark.parametrize("wrong", [{"frames": "film"}, {"positions": "middle"}])
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        UniformFrames(**wrong)

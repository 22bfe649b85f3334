"""Frames as one video: times, and streams that change their resolution."""

import pytest
from PIL import Image

from laconic.cli.clip import clip_of
from laconic.media import Frame


def frames(*times, sizes=None, of=100, length=10.0):
    sizes = sizes or [(8, 6)] * len(times)
    return [
        Frame(Image.new("RGB", size, (40, 0, 0)), 10 * i, of, "film.mp4", time, length)
        for i, (time, size) in enumerate(zip(times, sizes, strict=True))
    ]


def test_times_are_milliseconds_of_a_constant_rate():
    """So the rate at which a processor thinks that it was sampled is frames over seconds, and every time is exact."""
    clip, notes = clip_of(frames(0.5, 2.0, 9.123))
    assert notes == [] and clip.times == [0.5, 2.0, 9.123] and clip.length == 10
    assert clip.metadata() == {
        "total_num_frames": 10_000,
        "fps": 1000.0,
        "duration": 10.0,
        "frames_indices": [500, 2000, 9123],
    }


def test_frames_without_times_are_two_a_second():
    clip, _ = clip_of(frames(None, None, None, of=30, length=None))
    assert clip.times == [0, 5, 10] and clip.length == 15


def test_a_single_frame_of_no_length():
    clip, _ = clip_of(frames(0.0, of=1, length=0.0))
    assert clip.metadata()["frames_indices"] == [0] and clip.metadata()["total_num_frames"] == 1


def test_a_changed_resolution_is_resized_to_the_first_and_said():
    clip, notes = clip_of(frames(0.0, 1.0, 2.0, sizes=[(8, 6), (4, 3), (8, 6)]))
    assert {image.size for image in clip.frames} == {(8, 6)}
    assert notes == ["film.mp4 changes its resolution; all frames are shown at that of the first, 8 x 6."]
    assert clip.frames[1].getpixel((7, 5)) == pytest.approx((40, 0, 0))

"""Methods with a say in what images a prompt has."""

from dataclasses import replace

from helpers.image_files import noise

from laconic import create_method
from laconic.media import Frame
from laconic.media.arrange import ArrangesFrames, arranged

FRAMES = [Frame(noise(seed=i), i, 4, "clip.gif") for i in range(4)]


class Reversed:
    def arrange(self, stills, frames, side):
        return [*stills, *(replace(frame, number=side + frame.number) for frame in reversed(frames))]


def test_frames_are_arranged_by_the_method_that_wants_to():
    found = arranged(FRAMES, 1, [create_method("divprune"), Reversed()], 10)
    assert [frame.number for frame in found] == [0, 13, 12, 11]


def test_without_a_video_or_such_a_method_all_stays():
    assert arranged(FRAMES, 4, [Reversed()], None) == FRAMES == arranged(FRAMES, 1, [create_method("divprune")], None)
    assert not isinstance(create_method("fastv"), ArrangesFrames) and isinstance(create_method("ts_llava"), ArrangesFrames)

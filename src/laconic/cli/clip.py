"""The frames of `--video` as one video, for a model's own video input."""

from __future__ import annotations

from collections.abc import Sequence

from laconic.media import Frame
from laconic.prompts.clip import Clip

RATE = 2.0
"""Frames per second of a source that has no times, such as a folder: the rate at which Qwen models sample, too."""


def clip_of(frames: Sequence[Frame]) -> tuple[Clip, list[str]]:
    """The clip that these frames of one source are, and notes for the user.

    Frames that differ in size (a stream that changes its resolution) are resized to the first.
    """
    notes, first = [], frames[0].image.size
    images = [frame.image if frame.image.size == first else frame.image.resize(first) for frame in frames]
    if any(frame.image.size != first for frame in frames):
        notes.append(
            f"{frames[0].source} changes its resolution; all frames are shown at that of the first, {first[0]} x {first[1]}."
        )
    times = [frame.time for frame in frames]
    length = frames[0].length
    if length is None or any(time is None for time in times):
        return Clip(images, [frame.number / RATE for frame in frames], frames[0].of / RATE), notes
    return Clip(images, [time for time in times if time is not None], length), notes

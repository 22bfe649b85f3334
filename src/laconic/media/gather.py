"""What one prompt shows: its image files in order, then the frames of its video."""

from __future__ import annotations

from collections.abc import Sequence

from laconic.errors import MediaError
from laconic.media.frames import Frame, load_frames
from laconic.media.images import load_image, sequence

MAX_TOTAL = 256_000_000
"""Pixels of all images of a prompt taken together: 768 MB as RGB."""
FRAMES = 8
"""Frames shown of a video by default."""


def gather(images: Sequence[str], video: str | None = None, frames: int | None = None) -> tuple[list[Frame], list[str]]:
    """Load everything that a prompt shows.

    Returns:
        the images, still ones first, and notes for the user: which files are shown only in part.

    Raises:
        MediaError: one of them cannot be shown, or they are too large in total.
    """
    shown: list[Frame] = []
    notes = []
    for path in images:
        _add(shown, Frame(load_image(path), 0, 1, path))
        if what := sequence(path):
            notes.append(f"{path} is {what}, and only its first frame is shown; give it as --video to show more.")
    if video is not None:
        still, wanted = len(shown), FRAMES if frames is None else frames
        for frame in load_frames(video, wanted):
            _add(shown, frame)
        found = len(shown) - still
        of = shown[-1].of
        if found < min(of, wanted):
            notes.append(
                f"{video}: its {of} frames last unequally long, and {found} of them are on screen in the middle of {wanted} "
                "equal segments of the time; these are shown. Ask for more --frames to show shorter ones."
            )
        elif frames is not None and found < frames:
            notes.append(f"{video} has {found} frames, fewer than the {frames} asked for; all are shown.")
    return shown, notes


def _add(shown: list[Frame], frame: Frame) -> None:
    shown.append(frame)
    total = sum(f.image.width * f.image.height for f in shown)
    if total > MAX_TOTAL:
        raise MediaError(
            f"the images have over {MAX_TOTAL:,} pixels in total, which is the most that can be read; give fewer or smaller "
            "ones, or fewer --frames."
        )

"""What one prompt shows: its image files in order, then the frames of its video."""

from __future__ import annotations

from collections.abc import Sequence

from laconic.errors import MediaError
from laconic.media.frames import ANIMATED, Frame, load_frames
from laconic.media.images import load_image, moves

MAX_TOTAL = 256_000_000
"""Pixels of all images of a prompt together: 768 MB as RGB."""
FRAMES = 8
"""Of a video, unless told."""


def gather(images: Sequence[str], video: str | None = None, frames: int | None = None) -> tuple[list[Frame], list[str]]:
    """Load everything that a prompt shows.

    Returns:
        the images, still ones first, and what should be said aloud: of what files only a part is shown.

    Raises:
        MediaError: one of them cannot be shown, or all together are too large.
    """
    shown: list[Frame] = []
    notes = []
    for path in images:
        _add(shown, Frame(load_image(path), 0, 1, path))
        if path.lower().endswith(ANIMATED) and moves(path):
            notes.append(f"{path} moves, and its first frame is shown; give it as --video to show more.")
    if video is not None:
        still, wanted = len(shown), FRAMES if frames is None else frames
        for frame in load_frames(video, wanted):
            _add(shown, frame)
        found = len(shown) - still
        if frames is not None and found < frames:
            notes.append(f"{video} has {found} frames, fewer than the {frames} asked for; all are shown.")
    return shown, notes


def _add(shown: list[Frame], frame: Frame) -> None:
    shown.append(frame)
    total = sum(f.image.width * f.image.height for f in shown)
    if total > MAX_TOTAL:
        raise MediaError(
            f"the images have over {MAX_TOTAL:,} pixels together, which is the most that is read; give fewer or smaller "
            "ones, or fewer --frames."
        )

"""Frames in time order: those of a video file or an animation, or the images of a folder, sampled evenly."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from laconic.errors import MediaError
from laconic.media.images import SUFFIXES, animation, check_size, frame_count, load_image

ANIMATED = (".gif", ".webp", ".png")


@dataclass(frozen=True)
class Frame:
    """One sampled frame: the image, its number among all `of` frames, from 0, and the file that it came from."""

    image: Image.Image
    number: int
    of: int
    source: str


def load_frames(path: str | os.PathLike[str], count: int) -> Iterator[Frame]:
    """`count` frames in order, or all frames if there are fewer; loaded one at a time, as they are requested.

    Args:
        path: a folder of images in natural order (2.png before 10.png; files whose names are not those of images are
            ignored), an animated GIF, WebP or PNG, or a video file (needs the extra ``laconic-transformers[video]``).
        count: at least 1. The frames chosen are in the middle of `count` equal segments.

    Raises:
        MediaError: there is no such file, it has no frames, or a frame cannot be read.
    """
    if count < 1:
        raise MediaError(f"frames={count}: at least one frame must be shown.")
    source = Path(path)
    if source.is_dir():
        files = images_of(source)
        for number in middles(len(files), count):
            yield Frame(load_image(files[number]), number, len(files), str(files[number]))
    elif source.suffix.lower() in ANIMATED:
        total = frame_count(source)
        chosen = middles(total, count)
        for number, image in zip(chosen, animation(source, chosen), strict=True):
            yield Frame(image, number, total, str(source))
    else:
        yield from _video(source, count)


def middles(total: int, count: int) -> list[int]:
    """Numbers of the frames in the middle of `count` equal segments of `total`: floor((i + 1/2) total / count)."""
    count = min(total, count)
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def images_of(folder: Path) -> list[Path]:
    """The images of a folder in natural order, by file extension; hidden files and subfolders are ignored.

    Raises:
        MediaError: the folder cannot be read, or holds no images.
    """
    try:
        files = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()]
    except OSError as error:
        raise MediaError(f"cannot read {folder}: {error.strerror or error}.") from error
    if not files:
        raise MediaError(f"{folder} holds no images; frames are files that end in {', '.join(SUFFIXES)}.")
    return sorted(files, key=lambda p: natural(p.name))


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that orders numbers within names by value, and before letters."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name.lower())
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts], name


def _video(path: Path, count: int) -> Iterator[Frame]:
    """Decode twice: the length given in containers is often missing or wrong, and only few frames are shown."""
    if not path.is_file():
        raise MediaError(f"cannot read {path}: {'no regular file' if path.exists() else 'no such file or folder'}.")
    with _decoded(path) as frames:
        total = sum(1 for _ in frames)
    if not total:
        raise MediaError(f"{path} is a video without frames.")
    chosen = set(middles(total, count))
    with _decoded(path) as frames:
        for number, frame in enumerate(frames):
            if number in chosen:
                check_size((frame.width, frame.height), path)
                yield Frame(_upright(frame), number, total, str(path))


@contextmanager
def _decoded(path: Path) -> Iterator[Iterator[Any]]:
    """The frames of a video file's first video stream, as PyAV gives them."""
    try:
        import av
    except ImportError as error:
        raise MediaError(
            f"{path}: video files are read with PyAV, which is not installed; pip install 'laconic-transformers[video]', or "
            "give a folder of frames or an animated GIF, WebP or PNG."
        ) from error
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MediaError(f"{path} has no video stream, so no frames.")
            stream = container.streams.video[0]
            check_size((stream.width, stream.height), path)  # before a frame of that size is decoded
            stream.thread_type = "AUTO"
            yield container.decode(stream)
    except MediaError:
        raise
    except Exception as error:  # FFmpeg's errors are of many kinds
        raise MediaError(f"{path} is not a video that can be read: {' '.join(str(error).split())}.") from error


def _upright(frame: Any) -> Image.Image:
    """Rotated as the container's display matrix requires: FFmpeg's angle is counterclockwise, and so is Pillow's."""
    turn = round(getattr(frame, "rotation", 0)) % 360
    image: Image.Image = frame.to_image().convert("RGB")
    return image.rotate(turn, expand=True) if turn else image

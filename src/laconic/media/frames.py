"""Frames in time order: those of a video file or an animation, or the images of a folder, sampled evenly."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from PIL import Image

from laconic.errors import MediaError
from laconic.media.images import SUFFIXES, animation, durations, load_image
from laconic.media.kinds import HEAD, kind_of
from laconic.media.sampling import middles, on_screen
from laconic.media.video import video_frames


@dataclass(frozen=True)
class Frame:
    """One sampled frame: the image, its number among all `of` frames, from 0, and the file that it came from.

    Attributes:
        time, length: when the frame appears, and how long the whole lasts, in seconds; None where the source has no times.
    """

    image: Image.Image
    number: int
    of: int
    source: str
    time: float | None = None
    length: float | None = None


def load_frames(path: str | os.PathLike[str], count: int) -> Iterator[Frame]:
    """`count` frames in order, or all frames if there are fewer; loaded one at a time, as they are requested.

    Args:
        path: a folder of images in natural order (2.png before 10.png; files whose names are not those of images are
            ignored), an animated GIF, WebP, PNG or AVIF, or a video file (needs ``laconic-transformers[video]``). Files are
            recognised by their content.
        count: at least 1. The frames chosen are on screen in the middle of `count` equal segments of the time; one that is
            on screen in the middle of several is shown once.

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
    elif _is_image(source):
        edges = [0, *accumulate(durations(source))]
        chosen = on_screen(edges, count)
        for number, image in zip(chosen, animation(source, chosen), strict=True):
            yield Frame(image, number, len(edges) - 1, str(source), edges[number] / 1000, edges[-1] / 1000)
    else:
        for shown in video_frames(source, count):
            yield Frame(shown.image, shown.number, shown.of, str(source), shown.time, shown.length)


def _is_image(path: Path) -> bool:
    """By its content, and by its name where that says nothing."""
    kind = None
    if path.is_file():  # and no pipe, which would wait for its writer
        try:
            with path.open("rb") as file:
                kind = kind_of(file.read(HEAD))
        except OSError as error:
            raise MediaError(f"cannot read {path}: {error.strerror or error}.") from error
    return path.suffix.lower() in SUFFIXES if kind is None else kind.holds != "video"


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

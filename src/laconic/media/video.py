"""Frames of a video file, by the time at which they are shown; read with PyAV (the extra `video`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from laconic.errors import MediaError
from laconic.media.images import check_size
from laconic.media.sampling import on_screen
from laconic.media.whole import check_whole


@dataclass(frozen=True)
class Shown:
    """A frame of a video file: its image, its number among all `of`, when it appears, and how long the video lasts, in
    seconds (None in streams without times)."""

    image: Image.Image
    number: int
    of: int
    time: float | None
    length: float | None


def video_frames(path: Path, count: int) -> Iterator[Shown]:
    """The frames on screen in the middle of `count` equal segments of the time.

    Decodes twice: the length given in containers is often missing or wrong, and only few frames are shown.

    Raises:
        MediaError: the file cannot be read, is cut off, or has no frames.
    """
    if not path.is_file():
        raise MediaError(f"cannot read {path}: {'not a regular file' if path.exists() else 'no such file or folder'}.")
    times: list[int | None] = []
    unit: float | None = None
    with _decoded(path) as frames:
        for frame in frames:
            times.append(frame.pts)
            unit = None if frame.time_base is None else float(frame.time_base)
    if not times:
        raise MediaError(f"{path} is a video without frames.")
    edges = _edges(times)
    chosen = set(on_screen(edges, count))
    seconds = [None if unit is None or None in times else (edge - edges[0]) * unit for edge in edges]
    with _decoded(path) as frames:
        for number, frame in enumerate(frames):
            if number in chosen:
                check_size((frame.width, frame.height), path)
                yield Shown(_upright(frame), number, len(times), seconds[number], seconds[-1])


def _edges(times: list[int | None]) -> list[int]:
    """When each frame appears, and when the last one ends: it lasts as long as the one before. Frames of streams without
    times are evenly spaced."""
    edges: list[int] = []
    for time in times:
        if time is None:
            return list(range(len(times) + 1))
        edges.append(max([time, *edges[-1:]]))
    return [*edges, edges[-1] + (edges[-1] - edges[-2] if len(edges) > 1 else 1)]


@contextmanager
def _decoded(path: Path) -> Iterator[Iterator[Any]]:
    """The frames of a file's first video stream, as PyAV gives them; a cover image is not one."""
    try:
        import av
        from av.stream import Disposition
    except ImportError as error:
        raise MediaError(
            f"{path}: video files are read with PyAV, which is not installed; pip install 'laconic-transformers[video]', or "
            "give a folder of frames or an animated GIF, WebP or PNG."
        ) from error
    try:
        check_whole(path)
        with av.open(str(path)) as container:
            covers = Disposition.attached_pic | Disposition.timed_thumbnails
            streams = [stream for stream in container.streams.video if not stream.disposition & covers]
            if not streams:
                cover = "only a cover image, no video" if container.streams.video else "no video stream, so no frames"
                raise MediaError(f"{path} has {cover}.")
            stream = streams[0]
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

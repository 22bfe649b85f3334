"""One image file, read strictly and within limits: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF, as an upright RGB image.

What is converted, and how: EXIF orientation is applied. Transparency is composited over white. 16-bit channels keep their
eight highest bits. CMYK becomes RGB by Pillow's formula; ICC profiles are not applied. Of a file with several images (GIF,
WebP and AVIF animations, APNG, MPO, pages of a TIFF) one is shown, the first by default.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, features

from laconic.errors import MediaError
from laconic.media.kinds import HEAD, Kind, kind_of

FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    *(["AVIF"] if "avif" in features.modules and features.check_module("avif") else []),
)
"""As Pillow calls them; it reads AVIF from 11.3 on."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
SEQUENCES = {**dict.fromkeys(("GIF", "WEBP", "PNG", "AVIF"), "animated"), "TIFF": "a stack of pages"}
"""What files of several images are. A JPEG of several (MPO) is a still image: phones store depth and brightness that way."""
TIMED_LATE = ("WEBP", "AVIF")
"""Formats in which Pillow knows how long a frame lasts only once it is decoded."""
SHORTEST, UNTIMED = 10, 100
"""Milliseconds: frames that last no longer than the first are shown for the second, as in browsers."""
MAX_PIXELS = 64_000_000
"""Pixels of one image: 192 MB as RGB. A few kilobytes of PNG can hold far more, so sizes are checked before decoding."""
MAX_BYTES = 256 * 2**20
"""Bytes of one image file."""
MAX_SIDES = 200
"""Longest side over shortest: processors that fix the shortest side would turn a thin image into a huge one."""
MAX_FRAMES = 100_000
"""Frames of one animation; fewer where they are large: `MAX_DRAWN` pixels in all."""
MAX_DRAWN = 4_000_000_000
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What EXIF orientations require; the others, 1 included, require nothing."""
ORIENTATION = 0x0112
DEEP = {"F": "floating-point numbers", "I": "signed or 32-bit integers"}
"""Pillow's modes of TIFF images whose range of values is not known."""


def load_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The first image of a file, upright, RGB.

    Raises:
        MediaError: the file cannot be read, is not a complete image of a known format, or is too large.
    """
    with opened(path, max_pixels=max_pixels) as image:
        return rgb(image)


def image_of(data: bytes, name: str = "the image", *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The first image in the bytes of a file that messages call `name`; see `load_image`."""
    with _opened(data, name, max_pixels) as image:
        return rgb(image)


def durations(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> list[int]:
    """How long each image of a file is shown, in milliseconds, as browsers do; one value for a still one. An animation is
    read to its end. Pages of a TIFF are shown equally long.

    Raises:
        MediaError: see `load_image`.
    """
    with opened(path, max_pixels=max_pixels) as image:
        return [round(time) if time > SHORTEST else UNTIMED for time in _durations(image)]


def sequence(path: str | os.PathLike[str]) -> str:
    """What a file of several images is, "animated" or "a stack of pages"; "" for a still one."""
    with opened(path) as image:
        several = bool(getattr(image, "is_animated", False))
        return SEQUENCES.get(image.format or "", "") if several else ""


def animation(path: str | os.PathLike[str], chosen: Sequence[int], *, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The frames `chosen`, ascending, of an animation; what a frame leaves unchanged is filled in from earlier ones.

    Raises:
        MediaError: see `load_image`.
    """
    with opened(path, max_pixels=max_pixels) as image:
        for number in chosen:
            image.seek(number)
            yield rgb(image)


@contextmanager
def opened(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The file as Pillow opens it, its size checked and nothing decoded yet. Every error inside the block becomes a
    `MediaError` that names the file."""
    with _opened(_bytes(Path(path)), path, max_pixels) as image:
        yield image


@contextmanager
def _opened(data: bytes, name: object, max_pixels: int) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's hints about odd metadata; what matters raises an error
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                check_size(image.size, name, max_pixels)
                _check_depth(image, name)
                if image.format == "GIF":
                    _walk_gif(data)
                yield image
    except MediaError:
        raise
    except Image.UnidentifiedImageError as error:
        raise MediaError(_unknown(name, kind_of(data[:HEAD]))) from error
    except Image.DecompressionBombError as error:
        raise MediaError(f"{name} is too large: {error}") from error
    except Exception as error:  # on hostile bytes decoders raise errors of any kind
        raise MediaError(f"{name} is broken or cut off: {' '.join(str(error).split()) or type(error).__name__}.") from error


def _unknown(path: object, kind: Kind | None) -> str:
    """Why a file that Pillow does not open is refused, and what to do."""
    known = f"laconic reads {', '.join(FORMATS)}"
    if kind is None:
        return f"{path} is not an image, or is broken at its very beginning; {known}."
    if kind.holds == "video":
        return f"{path} is {kind.name}, not an image; give it as --video to show frames of it."
    if kind.read_as == "AVIF" and "AVIF" not in FORMATS:
        return f"{path} is {kind.name}, which Pillow reads from 11.3 on; pip install 'pillow>=11.3', or save it as PNG."
    if kind.read_as:
        return f"{path} is {kind.name} of a variety that Pillow cannot read, or broken at its beginning; save it as PNG."
    return f"{path} is {kind.name}, which laconic cannot read; save it as PNG or JPEG ({known})."


def check_size(size: tuple[int, int], name: object, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse images without pixels, with too many, or far too thin.

    Raises:
        MediaError: one of these.
    """
    width, height = size
    if min(size) < 1:
        raise MediaError(f"{name} is {width} x {height} pixels: there is nothing to see in it.")
    if width * height > max_pixels:
        raise MediaError(
            f"{name} is {width} x {height} = {width * height:,} pixels; at most {max_pixels:,} can be read. Make it smaller."
        )
    if max(size) > MAX_SIDES * min(size):
        raise MediaError(f"{name} is {width} x {height} pixels: one side is over {MAX_SIDES} times the other. Crop it.")


def _check_depth(image: Image.Image, name: object) -> None:
    """Refuse what no one knows how to show in eight bits: their white is not in the file."""
    if image.format == "TIFF" and image.mode in ("F", "I"):
        raise MediaError(f"{name} stores its values as {DEEP[image.mode]}; save it with 8 or 16 bits a channel.")


def rgb(image: Image.Image) -> Image.Image:
    """A decoded frame as a separate, upright RGB image."""
    image.load()
    turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    """The eight highest of 16 bits of grey, and white where the grey is the value that means transparent."""
    values, clear = np.asarray(image), image.info.get("transparency")
    grey = (values >> 8).clip(0, 255).astype(np.uint8)
    return Image.fromarray(grey if clear is None else np.where(values == clear, np.uint8(255), grey))


def _durations(image: Image.Image) -> list[float]:
    """Milliseconds of each frame, found by seeking to it; 0 where the file does not say."""
    most = max(1, min(MAX_FRAMES, MAX_DRAWN // (image.width * image.height)))
    found: list[float] = []
    while len(found) < most:
        if image.format in TIMED_LATE:
            image.load()
        found.append(image.info.get("duration") or 0)
        if image.format == "MPO":
            return found
        try:
            image.seek(len(found))
        except EOFError:
            return found
    raise ValueError(f"over {most:,} frames of {image.width} x {image.height} pixels are not read")


def _walk_gif(data: bytes) -> None:
    """Walk the blocks of a GIF to its end marker: Pillow takes a file cut off between two frames for a complete one."""

    def behind_colours(at: int, flags: int) -> int:
        return at + (3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0)

    try:
        at = behind_colours(13, data[10])
        while data[at] != 0x3B:
            if data[at] == 0x21:  # extension: its label
                at += 2
            elif data[at] == 0x2C:  # frame: its descriptor, colours and code size
                at = behind_colours(at + 10, data[at + 9]) + 1
            else:
                raise ValueError(f"byte 0x{data[at]:02x} at {at} does not begin a GIF block")
            while data[at]:
                at += 1 + data[at]
            at += 1
    except IndexError:
        raise ValueError("the GIF has no end marker") from None


def _bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise MediaError(f"{path} is a folder, not an image; give a folder of frames as --video.")
        if path.exists() and not path.is_file():
            raise MediaError(f"{path} is not a regular file; give an image file.")
        size = path.stat().st_size
        if not size:
            raise MediaError(f"{path} is empty.")
        if size > MAX_BYTES:
            raise MediaError(f"{path} has {size:,} bytes; image files of at most {MAX_BYTES:,} are read.")
        return path.read_bytes()
    except OSError as error:
        raise MediaError(f"cannot read {path}: {error.strerror or error}.") from error

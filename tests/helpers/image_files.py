"""Small image files of every format that laconic reads, as bytes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def noise(width: int = 30, height: int = 20, seed: int = 0) -> Image.Image:
    """Random colours: no two pixels or images are alike."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def colours(*values: tuple[int, int, int], side: int = 16) -> list[Image.Image]:
    """Images of one colour each."""
    return [Image.new("RGB", (side, side), value) for value in values]


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """As Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    """EXIF with that orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def moving(kind: str, frames: list[Image.Image], **options: Any) -> bytes:
    """An animation. Of copies: Pillow leaves what one format wrote in an image, and others trip over it."""
    return saved(frames[0].copy(), kind, save_all=True, append_images=[frame.copy() for frame in frames[1:]], **options)


def corpus() -> dict[str, bytes]:
    """One file of every kind: formats, modes, animations, EXIF."""
    image, frames = noise(), [noise(16, 16, seed) for seed in range(3)]
    grey = np.random.default_rng(1).integers(0, 65536, (20, 30), dtype=np.uint16)
    alpha = image.convert("RGBA")
    alpha.putalpha(noise(seed=3).convert("L"))
    return {
        "jpeg": saved(image, "JPEG"),
        "progressive": saved(image, "JPEG", progressive=True),
        "cmyk": saved(image.convert("CMYK"), "JPEG"),
        "grey jpeg": saved(image.convert("L"), "JPEG"),
        "exif": saved(image, "JPEG", exif=turned(6)),
        "mpo": moving("MPO", frames),
        "png": saved(image, "PNG"),
        "palette": saved(image.convert("P"), "PNG", transparency=3),
        "png exif": saved(image, "PNG", exif=turned(5)),
        "alpha": saved(alpha, "PNG"),
        "16 bits": saved(Image.fromarray(grey), "PNG"),
        "one bit": saved(image.convert("1"), "PNG"),
        "apng": moving("PNG", frames),
        "webp": saved(image, "WEBP"),
        "webp alpha": saved(alpha, "WEBP", lossless=True),
        "moving webp": moving("WEBP", frames),
        "gif": saved(image, "GIF"),
        "moving gif": moving("GIF", frames, transparency=0, disposal=2),
        "bmp": saved(image, "BMP"),
        "tiff": saved(image, "TIFF"),
        "packed tiff": saved(image, "TIFF", compression="tiff_lzw"),
        "tiff exif": saved(image, "TIFF", exif=turned(6)),
        "pages": moving("TIFF", frames),
        "avif": saved(image, "AVIF"),
        "avif exif": saved(image, "AVIF", exif=turned(6)),
        "moving avif": moving("AVIF", frames),
    }

"""What kind of file it is, by its first bytes: what laconic does not read is refused by its name, never called broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HEAD = 4096
"""Bytes that are looked at."""


@dataclass(frozen=True)
class Kind:
    """A file format.

    Attributes:
        name: as people call it. `holds`: what is in it.
        read_as: Pillow's name of a format that laconic reads; "" for others.
    """

    name: str
    holds: Literal["image", "video", "document"]
    read_as: str = ""


FIRST_BYTES = {
    b"\xff\xd8\xff": Kind("a JPEG image", "image", "JPEG"),
    b"\x89PNG\r\n\x1a\n": Kind("a PNG image", "image", "PNG"),
    b"GIF8": Kind("a GIF image", "image", "GIF"),
    b"BM": Kind("a BMP image", "image", "BMP"),
    b"II*\0": Kind("a TIFF image", "image", "TIFF"),
    b"MM\0*": Kind("a TIFF image", "image", "TIFF"),
    b"\xff\x0a": Kind("a JPEG XL image", "image"),
    b"\0\0\0\x0cJXL \r\n\x87\n": Kind("a JPEG XL image", "image"),
    b"\0\0\0\x0cjP  \r\n\x87\n": Kind("a JPEG 2000 image", "image"),
    b"\xff\x4f\xff\x51": Kind("a JPEG 2000 image", "image"),
    b"8BPS": Kind("a Photoshop document", "image"),
    b"\0\0\1\0": Kind("a Windows icon", "image"),
    b"qoif": Kind("a QOI image", "image"),
    b"\x76\x2f\x31\x01": Kind("an OpenEXR image", "image"),
    b"#?RADIANCE": Kind("a Radiance HDR image", "image"),
    b"%PDF-": Kind("a PDF document", "document"),
    b"%!PS": Kind("a PostScript document", "document"),
    b"\x1a\x45\xdf\xa3": Kind("a Matroska or WebM video", "video"),
    b"\0\0\1\xba": Kind("an MPEG video", "video"),
    b"FLV\1": Kind("a Flash video", "video"),
    b"OggS": Kind("an Ogg file", "video"),
}
BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), Kind("a HEIC image", "image")),
    **dict.fromkeys((b"avif", b"avis"), Kind("an AVIF image", "image", "AVIF")),
    b"crx ": Kind("a Canon raw image", "image"),
}
"""Of files that begin as MP4 does; any other brand is a video's."""


def kind_of(head: bytes) -> Kind | None:
    """What a file that begins with `head` is; None for unknown bytes."""
    for start, kind in FIRST_BYTES.items():
        if head.startswith(start):
            return kind
    if head[4:8] == b"ftyp":
        size = int.from_bytes(head[:4], "big")
        brands = [head[8:12], *(head[at : at + 4] for at in range(16, min(size, len(head)), 4))]
        if b"avif" in brands or b"avis" in brands:  # an AVIF may call itself by its container's brand, mif1
            return BRANDS[b"avif"]
        return BRANDS.get(head[8:12], Kind("an MP4 or QuickTime video", "video"))
    if head[4:8] in (b"moov", b"mdat", b"wide"):
        return Kind("a QuickTime video", "video")
    if head[:4] == b"RIFF":
        return {b"AVI ": Kind("an AVI video", "video"), b"WEBP": Kind("a WebP image", "image", "WEBP")}.get(head[8:12])
    if head[:1] == b"P" and head[1:2] in b"1234567" and head[2:3].isspace():
        return Kind("a Netpbm image", "image")
    if b"<svg" in head and b"<html" not in head.lower() and head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return Kind("an SVG drawing", "image")
    return None

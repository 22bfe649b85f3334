"""Whether a video file is complete: containers say how long their parts are, and decoders stop quietly where bytes end."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from laconic.errors import MediaError

BOXES = {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"sidx", b"free", b"skip", b"wide", b"meta", b"uuid"}
"""Parts of an MP4 or QuickTime file; after anything else nothing is known about it."""
SEGMENT = b"\x18\x53\x80\x67"
"""The part of a Matroska file that holds all the rest."""


def check_whole(path: Path) -> None:
    """Refuse a video whose end is missing. MP4, QuickTime, Matroska, WebM and AVI files say how long they are; files that
    do not, such as MPEG streams and recordings that were never finished, pass.

    Raises:
        MediaError: the file ends before its last part does.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        end = _end(file, size)
    if end > size:
        raise MediaError(
            f"{path} is cut off: it has {size:,} bytes and should have {end:,} or more, so the end of the video is missing. "
            "Copy or download it again."
        )


def _end(file: BinaryIO, size: int) -> int:
    """Where the last part that is named in a file ends; 0 where the file does not say."""
    head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"AVI ":
        length = int.from_bytes(head[4:8], "little")
        return 0 if length == 0xFFFFFFFF else 8 + length
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _matroska(file)
    return _boxes(file, size)


def _boxes(file: BinaryIO, size: int) -> int:
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if kind not in BOXES or length < 8:  # a length of 0 reaches to the end of the file, however long that is
            return 0
        at += length
    return at


def _matroska(file: BinaryIO) -> int:
    """The header is one element, the segment the next; its length may be unknown, as in a live recording."""
    file.seek(4)
    length = _number(file)
    if length is None:
        return 0
    file.seek(length, 1)
    if file.read(4) != SEGMENT:
        return 0
    length = _number(file)
    return 0 if length is None else file.tell() + length


def _number(file: BinaryIO) -> int | None:
    """A length in Matroska's form: the leading zero bits of the first byte count the bytes after it. All ones: unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0x7F >> more)]) + file.read(more), "big")
    return None if value == 2 ** (7 * (more + 1)) - 1 else value

"""Text from files: UTF-8, read strictly."""

from __future__ import annotations

from pathlib import Path

from laconic.prompts.text import PromptError

OTHERS = {
    b"%PDF-": "a PDF document; give its text, e.g. from pdftotext",
    b"PK\x03\x04": "a ZIP archive, as Word, EPUB and OpenDocument files are; give the text in it",
    b"\x1f\x8b": "compressed; give what gunzip makes of it",
    b"\xff\xfe": "UTF-16; convert it with iconv -f utf-16 -t utf-8",
    b"\xfe\xff": "UTF-16; convert it with iconv -f utf-16 -t utf-8",
}
"""First bytes of files that are given as texts by mistake: what they are, and what to do."""


def read_text(path: Path, name: str = "") -> str:
    """The text of a UTF-8 file; a BOM is dropped.

    Args:
        name: what messages call it; empty: its path.

    Raises:
        PromptError: the file is missing, a folder, unreadable, or not UTF-8.
    """
    try:
        return decoded(path.expanduser().read_bytes(), name or str(path))
    except OSError as error:
        raise PromptError(f"cannot read {name or path}: {error.strerror}.") from error


def decoded(data: bytes, name: str) -> str:
    """UTF-8 as text; a BOM is dropped.

    Args:
        name: where it came from, for the message.

    Raises:
        PromptError: it is not UTF-8; the message names the byte, or what kind of file it is.
    """
    for start, what in OTHERS.items():
        if data.startswith(start):
            raise PromptError(f"{name} is {what}.")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise PromptError(
            f"{name} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start} ({error.reason}); "
            "convert it, e.g. with iconv -t utf-8."
        ) from error

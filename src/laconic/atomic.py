"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part"
"""Suffix of unfinished files; their names begin with a dot and the name that they are to get."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it becomes `path` when the block ends without an error.

    A process that is killed leaves the old file as it was; after an error the temporary file is removed.
    """
    with unfinished(path) as part:
        yield part
        sync(part)  # the content has to be on the disk before the name points to it
        os.replace(part, path)


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A name beside `path` that no other process or thread writes to; nothing is left there at the end."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PART}")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until what was written to a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folder, and keeps names by itself
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Checksums of memory files: taken when one is written, compared when one is read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open

from laconic.errors import StoreError
from laconic.memory.entry import Entry


def examined(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a new memory file.

    Raises:
        StoreError: there is none, or it is no whole safetensors file.
    """
    try:
        with safe_open(path, framework="numpy"):  # checks the header, and that the tensors fill the file
            pass
    except (FileNotFoundError, SafetensorError) as error:
        raise StoreError(f"what was to be stored is no safetensors file: {error}.") from error
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()


class Checksums:
    """Which files have been read and found to be as their records say; those are not read again."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, int, int, str]] = {}

    def agree(self, path: Path, entry: Entry) -> bool:
        """Whether the file at `path` is the one that `entry` describes; not where there is none."""
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return False
        with file:
            stat = os.fstat(file.fileno())
            seen = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if self._found.get(entry.key) == (*seen, entry.sha256):
                return True
            if stat.st_size != entry.bytes or hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                return False
        self._found[entry.key] = (*seen, entry.sha256)
        return True

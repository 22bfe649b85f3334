"""The files of one namespace: how an entry is read, written, locked and removed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from laconic.atomic import replacing, sync
from laconic.errors import StoreError
from laconic.memory.entry import Entry, check_key, parsed, record, valid_key

DATA, RECORD = ".safetensors", ".json"
"""Suffixes of an entry's two files."""
LOCKS = "locks"


class Folder:
    """The folder at `path`, which `make` makes. An entry is there when both its record and its memory file are."""

    def __init__(self, path: Path):
        self.path = path

    def make(self) -> None:
        """Make the folder, for nobody else to look into."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def data(self, key: str) -> Path:
        """The memory file of an entry."""
        check_key(key)
        return self.path / f"{key}{DATA}"

    def record(self, key: str) -> Path:
        """The record of an entry."""
        check_key(key)
        return self.path / f"{key}{RECORD}"

    def lock(self, key: str) -> Path:
        """The lock file of an entry."""
        check_key(key)
        return self.path / LOCKS / f"{key}.lock"

    def locked(self, key: str, timeout: float = -1) -> FileLock:
        """The lock of an entry, held by whoever writes, changes or removes it."""
        self.lock(key).parent.mkdir(mode=0o700, exist_ok=True)
        return FileLock(self.lock(key), timeout=timeout, poll_interval=0.02)

    def all_keys(self) -> list[str]:
        """The keys of all records, in order."""
        names = (path.name.removesuffix(RECORD) for path in self.path.glob(f"*{RECORD}"))
        return sorted(name for name in names if valid_key(name))

    def read(self, key: str) -> Entry | None:
        """The record of an entry; None where there is none, or no memory file beside it.

        Raises:
            DamagedError: it is truncated or altered.
        """
        if not self.data(key).exists():
            return None
        try:
            with self.record(key).open("rb") as file:
                used = os.fstat(file.fileno()).st_mtime
                data = file.read()
        except FileNotFoundError:
            return None
        return parsed(data, key, used)

    def commit(self, part: Path, entry: Entry) -> None:
        """Give a finished memory file its name, after its record; the entry's lock is held."""
        part.chmod(0o600)
        sync(part)
        self.unlink(entry.key)  # one that was damaged or past its time: the new record must not stand beside its file
        self.write(entry)
        os.replace(part, self.data(entry.key))
        sync(self.path)

    def write(self, entry: Entry) -> None:
        """Write an entry's record; its lock is held."""
        with replacing(self.record(entry.key)) as unfinished:
            unfinished.write_bytes(record(entry))
            unfinished.chmod(0o600)
            stamp(unfinished, entry.used)

    def unlink(self, key: str) -> bool:
        """Remove an entry's files, the record first, and say whether there were any; its lock is held."""
        paths = [path for path in (self.record(key), self.data(key)) if path.exists()]
        for path in paths:
            path.unlink()
        return bool(paths)

    def drop(self, entry: Entry, still: Callable[[Entry], bool]) -> bool:
        """Remove an entry that is as it was listed and for which `still` holds; not one that is being written."""
        try:
            with self.locked(entry.key, timeout=0):
                now = self.read(entry.key)  # the listing may be older than a pin or a use
                return now == entry and still(now) and self.unlink(entry.key)
        except (Timeout, StoreError):
            return False


def stamp(path: Path, used: float) -> None:
    """The time of a record's last change says when its entry was last used."""
    os.utime(path, ns=(int(used * 1e9),) * 2)

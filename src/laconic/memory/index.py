"""The index of a store's folder: a copy of all records in one SQLite file, so that a listing opens no other file.

The records are the truth. Before the index answers, it compares the name, inode, size and time of every record with what it
holds and reads those anew that differ, so it can be deleted, damaged or out of date, and a process may be killed at any
moment: the answer is the same.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from laconic.errors import StoreError
from laconic.memory.entry import Entry, parsed, valid_key
from laconic.memory.folder import DATA, RECORD

FILE = "index.sqlite"
_DAMAGED = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Index:
    """Lists the entries of `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder

    def entries(self) -> list[Entry]:
        """All entries whose record is intact and whose file is there, by key. An index that is damaged is made anew."""
        if not self.folder.is_dir():
            return []
        try:
            return self._refreshed(str(self.folder / FILE))
        except sqlite3.Error as error:  # whatever is wrong with it (read-only, disk full, in use), the records can be read
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _DAMAGED:
                self.discard()
            return self._refreshed(":memory:")

    def discard(self) -> None:
        """Delete the index; the next listing makes it from the records."""
        for suffix in ("", "-wal", "-shm"):
            (self.folder / f"{FILE}{suffix}").unlink(missing_ok=True)

    def _refreshed(self, database: str) -> list[Entry]:
        with closing(sqlite3.connect(database, timeout=30)) as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=OFF")  # what a power cut takes is read from the records again
            db.execute("CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, stamp TEXT, record BLOB)")
            known = {key: (stamp, data) for key, stamp, data in db.execute("SELECT * FROM records")}
            entries: dict[str, Entry] = {}
            fresh: list[tuple[str, str, bytes]] = []
            for key, stat in self._stats().items():
                stamp = f"{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"
                entry = _entry(key, stat, known[key][1]) if known.get(key, ("",))[0] == stamp else None
                if entry is None:
                    data = _read(self.folder / f"{key}{RECORD}")
                    entry = _entry(key, stat, data)
                    if entry is None:
                        continue
                    fresh.append((key, stamp, data))
                entries[key] = entry
            gone = [(key,) for key in known.keys() - entries.keys()]
            if fresh or gone:
                db.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", fresh)
                db.executemany("DELETE FROM records WHERE key = ?", gone)
                db.commit()
        return [entries[key] for key in sorted(entries)]

    def _stats(self) -> dict[str, os.stat_result]:
        """The records whose memory is there, with what the file system says of them."""
        with os.scandir(self.folder) as found:
            files = {file.name: file for file in found}
        stats = {}
        for name, file in files.items():
            key = name.removesuffix(RECORD)
            if key != name and valid_key(key) and f"{key}{DATA}" in files:
                try:
                    stats[key] = file.stat()
                except FileNotFoundError:
                    continue  # removed meanwhile
        return stats


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _entry(key: str, stat: os.stat_result, data: object) -> Entry | None:
    """The entry of a record, None of a damaged one: `SegmentStore.verify` lists those. A damaged index may hold anything."""
    try:
        return parsed(data, key, used=stat.st_mtime) if isinstance(data, bytes) else None
    except StoreError:
        return None

"""results.jsonl: one finished row a line, appended and synced one at a time; only a failing disk loses a row."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from laconic.errors import StoreError

try:
    import fcntl
except ImportError:  # pragma: no cover  (Windows has no such lock; two benches in one folder are not caught there)
    fcntl = None  # type: ignore[assignment]

Row = dict[str, Any]


class Store:
    """The rows of one results file, open for appending. Use it as a context manager.

    Opening repairs what a kill left behind: a torn last line is removed, a whole one that lacks its line break is kept.

    Args:
        path: of results.jsonl; made if missing, with its folder.

    Raises:
        StoreError: a line in the middle is no row, a row occurs twice, another process writes the file, or the file
            cannot be opened.
    """

    def __init__(self, path: Path):
        self.path = path
        self.repaired = False
        self._file: int | None = None

    def __enter__(self) -> Store:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be opened for writing: {error.strerror}. Give another --out.") from error
        try:
            self._lock()
            self.rows: dict[str, Row] = {}
            self._size = self._repair()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the file; rows stay readable."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"another bench is writing {self.path}; wait for it or give another --out.") from error

    @property
    def _handle(self) -> int:
        if self._file is None:
            raise StoreError(f"{self.path} is not open; use the store inside a with block.")
        return self._file

    def _repair(self) -> int:
        """Read all rows; cut or complete a torn end. Returns the file's size."""
        data = self.path.read_bytes()
        whole, tail = _split(data)
        for row in parse(whole, self.path):
            self._enter(row)
        if not tail:
            return len(data)
        self.repaired = True
        last = _row(tail)
        if last is None:
            self._truncate(len(whole))
            return len(whole)
        self._enter(last)
        self._write(b"\n", len(data))
        return len(data) + 1

    def _enter(self, row: Row) -> None:
        if row["key"] in self.rows:
            raise StoreError(f"{self.path} holds the row {row['key']} twice; remove one of the two lines.")
        self.rows[row["key"]] = row

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def __len__(self) -> int:
        return len(self.rows)

    def append(self, row: Row) -> None:
        """Write one row and wait until it is on the disk.

        Args:
            row: plain values; ``key`` and ``settings`` are needed.

        Raises:
            StoreError: the row is there already, or the disk refuses it; the file then ends with the row before.
        """
        if row["key"] in self.rows:
            raise StoreError(f"the row {row['key']} is in {self.path} already.")
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        self._write(line, self._size)
        self._size += len(line)
        self.rows[row["key"]] = row

    def _write(self, line: bytes, size: int) -> None:
        """Append `line` whole to a file of `size` bytes, or leave it at that size."""
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[write(self._handle, rest) :]
            os.fsync(self._handle)
        except OSError as error:
            self._truncate(size)
            raise StoreError(
                f"{self.path} could not be written: {error.strerror}. The {len(self.rows)} rows before are safe; make room "
                "and run the same command again to continue."
            ) from error

    def _truncate(self, size: int) -> None:
        os.ftruncate(self._handle, size)
        os.fsync(self._handle)


write = os.write  # a test puts a full disk here


def read(path: Path) -> list[Row]:
    """The finished rows of a results file that another process may still be writing; the file is left as it is.

    Raises:
        StoreError: no such file, or a line in the middle is no row.
    """
    if not path.is_file():
        raise StoreError(f"{path} does not exist; run `laconic bench --out {path.parent}` first.")
    whole, tail = _split(path.read_bytes())
    last = _row(tail) if tail else None
    return [*parse(whole, path), *([last] if last else [])]


def parse(data: bytes, path: Path) -> Iterator[Row]:
    """The rows of whole lines; settings and machines that are alike are kept in memory once."""
    shared: dict[str, Any] = {}
    for number, line in enumerate(data.splitlines(), 1):
        row = _row(line)
        if row is None:
            raise StoreError(f"{path}, line {number} is no result row; remove the line, or give another --out.")
        for name in ("settings", "machine"):
            row[name] = shared.setdefault(json.dumps(row.get(name)), row.get(name))
        yield row


def _split(data: bytes) -> tuple[bytes, bytes]:
    end = data.rfind(b"\n") + 1
    return data[:end], data[end:]


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "key" in row and "settings" in row else None

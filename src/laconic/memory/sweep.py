"""Keeping a store's folder in order: what has to go, what was left behind, what is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import Timeout

from laconic.atomic import PART
from laconic.errors import StoreError
from laconic.memory.checksums import Checksums
from laconic.memory.entry import Entry, advice, valid_key
from laconic.memory.folder import DATA, LOCKS, RECORD, Folder
from laconic.memory.index import Index


@dataclass(frozen=True)
class Swept:
    """What `SegmentStore.gc` removed.

    Attributes:
        expired: keys of entries past their time; `evicted`: of those that had to go for the limit.
        leftovers: files of writers that were killed.
        bytes: that are free now.
    """

    expired: list[str] = field(default_factory=list)
    evicted: list[str] = field(default_factory=list)
    leftovers: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Damage:
    """An entry that cannot be served, and why."""

    key: str
    reason: str


def make_room(folder: Folder, listed: list[Entry], entry: Entry, limit: int, now: float) -> None:
    """Remove what `entry` needs the room of.

    Raises:
        StoreError: it does not fit beside what is pinned; nothing was removed.
    """
    others = [e for e in listed if e.key != entry.key]
    pinned = sum(e.bytes for e in others if e.pinned)
    if entry.bytes + pinned > limit:
        raise StoreError(
            f"{entry.key} has {entry.bytes:,} bytes, which do not fit into limit={limit:,} beside {pinned:,} bytes that are "
            "pinned; raise the limit or unpin something."
        )
    evict(folder, others, limit - entry.bytes, now)


def evict(folder: Folder, listed: list[Entry], limit: int, now: float) -> tuple[list[Entry], list[Entry]]:
    """Remove the entries that are past their time, then the least recently used ones that are not pinned, down to `limit`
    bytes; the two lists say which."""
    expired = [e for e in listed if e.expired(now) and folder.drop(e, lambda e: e.expired(now))]
    left = sorted((e for e in listed if e not in expired), key=lambda e: (e.used, e.key))
    held = sum(e.bytes for e in left)
    evicted = []
    for e in left:
        if held > limit and not e.pinned and folder.drop(e, lambda e: not e.pinned):
            held -= e.bytes
            evicted.append(e)
    return expired, evicted


def sweep(folder: Folder, index: Index, limit: int | None, now: float) -> Swept:
    """Remove what is past its time, what is over the limit, and what killed writers left behind."""
    listed = index.entries()
    expired, evicted = evict(folder, listed, sum(e.bytes for e in listed) if limit is None else limit, now)
    files, size = 0, 0
    for key in sorted({key for key, _ in _leftovers(folder)}):
        try:
            with folder.locked(key, timeout=0):  # who has the lock is writing
                for path in [path for found, path in _leftovers(folder) if found == key]:
                    size += path.stat().st_size
                    path.unlink()
                    files += 1
        except Timeout:
            continue
    _remove_locks(folder)
    freed = sum(e.bytes for e in (*expired, *evicted)) + size
    return Swept([e.key for e in expired], [e.key for e in evicted], files, freed)


def damages(folder: Folder) -> list[Damage]:
    """The entries that cannot be served, every byte read."""
    found = []
    for key in folder.all_keys():
        try:
            entry = folder.read(key)
        except StoreError as error:
            found.append(Damage(key, str(error)))
            continue
        if entry is not None and not Checksums().agree(folder.data(key), entry) and folder.read(key) == entry:
            found.append(Damage(key, f"{folder.data(key)} is truncated or was altered; {advice(key)}"))
    return found


def _leftovers(folder: Folder) -> Iterator[tuple[str, Path]]:
    """Files that belong to no entry, with the key under whose lock they were written: unfinished ones, and one without
    the other."""
    names = {path.name for path in folder.path.iterdir()}
    for name in sorted(names):
        key, dot, suffix = name.removeprefix(".").partition(".")
        if name.startswith("."):
            alone = name.endswith(PART)
        else:
            alone = {DATA: f"{key}{RECORD}", RECORD: f"{key}{DATA}"}.get(dot + suffix, name) not in names
        if alone and valid_key(key):
            yield key, folder.path / name


def _remove_locks(folder: Folder) -> None:
    """Remove the lock files of entries that are no more; one who waits for such a file sees that it is gone, and makes
    another."""
    for path in (folder.path / LOCKS).glob("*.lock"):
        key = path.stem
        if not valid_key(key) or folder.record(key).exists() or folder.data(key).exists():
            continue
        try:
            with folder.locked(key, timeout=0):
                path.unlink(missing_ok=True)
        except (Timeout, PermissionError):  # in use; Windows removes no file that is open
            continue

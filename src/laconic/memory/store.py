"""The segment store: a folder of memories that many processes share, each under a key that says what it was made of."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from laconic.atomic import unfinished
from laconic.errors import StoreError
from laconic.memory.checksums import Checksums, examined
from laconic.memory.entry import (
    FORMAT,
    DamagedError,
    Entry,
    advice,
    check_facts,
    check_key,
    check_namespace,
    segment_key,
)
from laconic.memory.faults import READ_ONLY, clearly
from laconic.memory.folder import Folder, stamp
from laconic.memory.index import Index
from laconic.memory.sweep import Damage, Swept, damages, make_room, sweep
from laconic.pretrained import cache_folder

__all__ = ["Damage", "DamagedError", "Entry", "SegmentStore", "Swept", "segment_key"]


class SegmentStore:
    """A folder of memories: for each a safetensors file and, beside it, a small record with its checksum and its facts.

    A memory is there from the moment its file gets its name, and it gets it whole. The files are the truth: the index
    (SQLite) is made from them whenever it is missing, damaged or behind. Any number of threads and processes of one machine
    may use a folder at once; every entry has a lock of its own.

    Args:
        folder: default: ``store`` in laconic's cache folder. It is made when something is first put into it.
        namespace: a folder of its own within it, with a limit of its own, for one user or one purpose.
        limit: bytes that the namespace may hold; to make room the entries go that were not used for longest. None: no limit.
        clock: seconds since 1970.

    Raises:
        StoreError: a namespace or a limit that cannot be. All methods raise it, with the reason, where the disk refuses.

    Example:
        >>> store = SegmentStore(limit=2_000_000_000)
        >>> key = segment_key(text.encode(), method="NAME:keep=0.25", artifact="", model=fingerprint)
        >>> path = store.get(key) or store.put(key, context.save, facts={"title": "Report"}, ttl=3600)
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        namespace: str = "default",
        limit: int | None = None,
        clock: Callable[[], float] = time.time,
    ):
        check_namespace(namespace)
        if limit is not None and limit < 1:
            raise StoreError(f"limit={limit}: a store holds at least one byte; give None for no limit.")
        root = cache_folder() / "store" if folder is None else Path(folder).expanduser()
        self.folder = root / f"v{FORMAT}" / namespace
        self.limit = limit
        self.clock = clock
        self._files = Folder(self.folder)
        self._index = Index(self.folder)
        self._checksums = Checksums()

    def __repr__(self) -> str:
        return f"SegmentStore({str(self.folder)!r}, limit={self.limit})"

    def get(self, key: str) -> Path | None:
        """The file of an entry, its bytes checked; None where there is none or its time is over. It counts as used.

        A file is checked once, and again when it has been replaced or its size or time has changed. Another process may
        remove the entry before the file is opened; a file that is open stays readable.

        Raises:
            DamagedError: the file or its record is truncated or altered.
        """
        path = self._files.data(key)
        while (entry := self.entry(key)) is not None:
            with clearly(f"read {path}"):
                intact = self._checksums.agree(path, entry)
            if intact:
                self.touch(key)
                return path
            now = self.entry(key)
            if now is not None and now.sha256 == entry.sha256:  # else it was replaced while we read
                raise DamagedError(f"{path} is truncated or was altered; {advice(key)}")
        return None

    def put(
        self,
        key: str,
        write: Callable[[Path], None],
        *,
        facts: Mapping[str, str] = {},
        ttl: float | None = None,
        pinned: bool = False,
    ) -> Path:
        """The file of the entry called `key`, written now unless it is there.

        Of several that put the same key at once one writes; the others wait for it and get its file. What is there is left
        as it is, facts and time to live included; what is damaged or past its time is replaced.

        Args:
            write: makes a safetensors file at the path that it is given.
            facts: what `Entry.facts` will say.
            ttl: seconds until it is no longer served. None: no such time.
            pinned: it stays, whatever its age and the limit.

        Raises:
            StoreError: `write` made no safetensors file, it does not fit the limit beside what is pinned, or the disk
                refuses it. Nothing of it is kept then. Other errors of `write` are passed on.
        """
        path = self._files.data(key)
        check_facts(facts)
        with clearly(f"write into {self.folder}"):
            self._files.make()
            with self._files.locked(key):
                if self._servable(key):
                    return path
                with unfinished(self._files.data(key)) as part:
                    write(part)
                    size, sha256 = examined(part)
                    now = self.clock()
                    expires = None if ttl is None else now + ttl
                    entry = Entry(key, size, sha256, now, expires, pinned, dict(facts), used=now)
                    if self.limit is not None:
                        make_room(self._files, self._index.entries(), entry, self.limit, now)
                    self._files.commit(part, entry)
        return path

    def entry(self, key: str) -> Entry | None:
        """What is known of an entry, its file unread; None where there is none or its time is over.

        Raises:
            DamagedError: its record is truncated or altered.
        """
        with clearly(f"read {key} in {self.folder}"):
            entry = self._files.read(key)
        return None if entry is None or entry.expired(self.clock()) else entry

    def entries(self) -> list[Entry]:
        """All entries by key, those past their time included; damaged ones are left out, see `verify`."""
        with clearly(f"list {self.folder}"):
            return self._index.entries()

    def all_keys(self) -> list[str]:
        """The keys of all entries, damaged ones included."""
        with clearly(f"list {self.folder}"):
            return self._files.all_keys()

    def touch(self, key: str) -> None:
        """Count an entry as used now. A store that may only be read remembers no use."""
        try:
            stamp(self._files.record(key), self.clock())
        except FileNotFoundError:
            return  # removed meanwhile
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise StoreError(f"{key} in {self.folder} cannot be marked as used: {error}.") from error

    def pin(self, key: str, pinned: bool = True) -> Entry:
        """Keep an entry whatever its age and the limit, or no longer.

        Raises:
            StoreError: there is no such entry.
        """
        return self._change(key, pinned=pinned)

    def extend(self, key: str, ttl: float | None) -> Entry:
        """Let an entry live for `ttl` seconds from now. None: without an end.

        Raises:
            StoreError: there is no such entry.
        """
        return self._change(key, expires=None if ttl is None else self.clock() + ttl)

    def remove(self, key: str) -> bool:
        """Remove an entry, damaged or not, and say whether there was one. Who has its file open can read on."""
        check_key(key)
        if not self.folder.is_dir():
            return False
        with clearly(f"remove {key} from {self.folder}"), self._files.locked(key):
            return self._files.unlink(key)

    def gc(self) -> Swept:
        """Remove what is past its time, what is over the limit, and what killed writers left behind."""
        if not self.folder.is_dir():
            return Swept()
        with clearly(f"clean {self.folder}"):
            return sweep(self._files, self._index, self.limit, self.clock())

    def verify(self) -> list[Damage]:
        """The entries that are truncated or altered, every byte of the store read."""
        with clearly(f"read {self.folder}"):
            return damages(self._files)

    def rebuild(self) -> None:
        """Make the index anew from the records."""
        with clearly(f"rebuild the index of {self.folder}"):
            self._index.discard()
            self._index.entries()

    def _servable(self, key: str) -> bool:
        try:
            return self.get(key) is not None
        except DamagedError:
            return False

    def _change(self, key: str, **changes: object) -> Entry:
        entry = self.entry(key)
        if entry is not None:
            with clearly(f"change {key} in {self.folder}"), self._files.locked(key):
                entry = self.entry(key)  # it may have gone while we waited
                if entry is not None:
                    entry = replace(entry, used=self.clock(), **changes)  # type: ignore[arg-type]
                    self._files.write(entry)
                    return entry
        raise StoreError(f"{self.folder} holds no {key}; `laconic store ls` lists what it holds.")

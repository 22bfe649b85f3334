"""What is known of every context: a small JSON file each, written whole or not at all, in a folder of its tenant."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from laconic.atomic import replacing
from laconic.serve.job import Stored

Status = Literal["queued", "running", "ready", "failed"]
ID = re.compile(r"ctx_[a-z2-7]{26}")
PLAIN = ("tenant", "owner", "form", "ttl", "compress", "protected")
"""Fields that are the server's own."""
OF_PROCESS = ("done", "mine", "stamp")
"""Fields that are no part of the file."""
STALE_S = 900.0
"""A context that another server has been making for longer than that never will be."""
INTERRUPTED = {"code": "interrupted", "message": "the server ended while it was made."}
TIMES = ("created_at", "last_used_at", "expires_at")


@dataclass
class Record:
    """One context.

    Attributes:
        id: from the tenant's secret and what the context is; nobody can guess it, and the same context gets it again.
        tenant: folder of its owner; `owner`: name of the key.
        form: a text or turns, see `laconic.serve.job.Stored`. `ttl`: seconds, from its latest use.
        parent: id of the context that it goes on from; it stays when that one goes.
        compress: how it was asked to be compressed, without what was protected, which may be text; `protected`: of its
            tokens, as [start, length].
        created_at, last_used_at, expires_at: seconds since 1970.
        tokens, bytes, seconds: as measured. `compression`, `fingerprint`: how it was made, and of what.
        done: set while nobody has to wait for it. `mine`: this process makes it, or has made it; `stamp`: of its file.
    """

    id: str
    tenant: str
    owner: str
    form: str
    model: str
    ttl: float
    created_at: float
    last_used_at: float
    expires_at: float | None
    status: Status = "queued"
    name: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    pinned: bool = False
    parent: str | None = None
    compress: dict[str, Any] | None = None
    protected: list[list[int]] = field(default_factory=list)
    compression: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, Any] = field(default_factory=dict)
    bytes: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    fingerprint: dict[str, Any] = field(default_factory=dict)
    uses: int = 0
    warnings: list[str] = field(default_factory=list)
    error: dict[str, str] | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event, compare=False)
    mine: bool = field(default=False, compare=False)
    stamp: int = field(default=0, compare=False)

    @property
    def stored(self) -> Stored:
        """Where it lies."""
        return Stored(self.tenant, self.id, self.form)

    def lives_from(self, used: float) -> None:
        """It was used at `used`, and lives as long as it is to from then on."""
        self.last_used_at = used
        self.expires_at = None if self.pinned else used + self.ttl

    def facts(self) -> dict[str, Any]:
        """For its file."""
        kept = {name: value for name, value in vars(self).items() if name not in OF_PROCESS}
        return json.loads(json.dumps(kept))  # type: ignore[no-any-return]

    def shown(self) -> dict[str, Any]:
        """For its owner."""
        facts = {name: value for name, value in self.facts().items() if name not in PLAIN}
        times = {name: None if facts[name] is None else int(facts[name]) for name in TIMES}
        return {"object": "context", **facts, **times, "progress": None}


class Records:
    """All contexts of a server, by tenant.

    Args:
        folder: made with its parents, readable by nobody else.
        shared: other servers write into it, too.
    """

    def __init__(self, folder: Path, shared: bool = False):
        self._folder, self._shared = folder, shared
        self._known: dict[str, dict[str, Record]] = {}
        if folder.is_dir():
            for path in sorted(folder.glob("*/ctx_*.json")):
                self._load(path)

    def _load(self, path: Path) -> None:
        """Read a record, or read it again; what a server was making when it ended was never finished."""
        try:
            stat = path.stat()
            facts = json.loads(path.read_text(encoding="utf-8"))
            record = Record(**facts)
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError):
            with suppress(OSError):
                path.rename(path.with_suffix(".damaged"))
            return
        if ID.fullmatch(record.id) is None or path.name != f"{record.id}.json" or path.parent.name != record.tenant:
            return
        known = self._known.setdefault(record.tenant, {}).setdefault(record.id, record)
        vars(known).update(facts)  # whoever waits for it has this very object
        known.stamp = stat.st_mtime_ns
        making = known.status in ("queued", "running")
        if making and self._shared and time.time() - stat.st_mtime < STALE_S:
            return
        known.done.set()
        if making:
            known.status, known.error = "failed", dict(INTERRUPTED)
            self.write(known)

    def refresh(self) -> None:
        """Look at what other servers are making."""
        for record in self:
            if not record.done.is_set():
                self._look(record.tenant, record.id)

    def _look(self, tenant: str, name: str) -> None:
        """Know of one record what its file says now; this process's own word counts while it makes one."""
        record, path = self._known.get(tenant, {}).get(name), self._folder / tenant / f"{name}.json"
        if not self._shared or (record is not None and record.mine and not record.done.is_set()):
            return
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            if record is not None:
                del self._known[tenant][name]
                record.status = "failed"
                record.done.set()
            return
        making = record is not None and not record.done.is_set()
        if record is None or record.stamp != changed or (making and time.time() - changed / 1e9 > STALE_S):
            self._load(path)

    def __iter__(self) -> Iterator[Record]:
        for records in list(self._known.values()):
            yield from list(records.values())

    def of(self, tenant: str) -> list[Record]:
        """A tenant's, the oldest first."""
        if self._shared:
            known = set(self._known.get(tenant, {}))
            for name in known | {path.stem for path in (self._folder / tenant).glob("ctx_*.json")}:
                self._look(tenant, name)
        return sorted(self._known.get(tenant, {}).values(), key=lambda record: (record.created_at, record.id))

    def get(self, tenant: str, name: str) -> Record | None:
        self._look(tenant, name)
        return self._known.get(tenant, {}).get(name)

    def write(self, record: Record) -> None:
        """Keep a record as it is now."""
        folder = self._folder / record.tenant
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(folder / f"{record.id}.json") as part:
            part.touch(mode=0o600)
            part.write_text(json.dumps(record.facts()), encoding="utf-8")
        self._known.setdefault(record.tenant, {})[record.id] = record
        with suppress(OSError):  # another server may have removed it again
            record.stamp = (folder / f"{record.id}.json").stat().st_mtime_ns

    def remove(self, record: Record) -> None:
        self._known.get(record.tenant, {}).pop(record.id, None)
        (self._folder / record.tenant / f"{record.id}.json").unlink(missing_ok=True)

    def secret(self, tenant: str) -> bytes:
        """32 random bytes of a tenant, made when they are first asked for."""
        folder = self._folder / tenant
        path = folder / "secret"
        with suppress(FileNotFoundError):
            return path.read_bytes()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(path) as part:
            part.touch(mode=0o600)
            part.write_bytes(secrets.token_bytes(32))
        return path.read_bytes()


def tenant_of(owner: str) -> str:
    """Folder and namespace of a key's name."""
    return hashlib.sha256(owner.encode()).hexdigest()[:40]


def id_of(secret: bytes, digest: str) -> str:
    """The id of the context that `digest` stands for, for the tenant with this secret."""
    mac = hmac.new(secret, digest.encode(), hashlib.sha256).digest()
    return "ctx_" + base64.b32encode(mac).decode().lower()[:26]

"""Contexts as requests see them: made once, found again by what they are, asked, changed, deleted; never another key's."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

from laconic.errors import StoreError
from laconic.memory.store import SegmentStore
from laconic.serve.config import Config
from laconic.serve.front.builds import Build
from laconic.serve.front.records import ID, Record, Records, id_of, tenant_of
from laconic.serve.front.scheduler import Scheduler, overdue
from laconic.serve.keys import Key
from laconic.serve.refusal import NO_RETRY, Refusal

SWEEP_S = 30.0
FOLLOW_S = 0.2


class Contexts:
    """The contexts of all keys.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, config: Config, schedulers: Mapping[str, Scheduler], clock: Callable[[], float] = time.time):
        self._config, self._schedulers, self._clock = config, schedulers, clock
        self.records = Records(config.store.folder / "records", config.store.shared)
        self._builds: dict[str, Build] = {}
        self.hits = self.made = 0
        self._stores: dict[str, SegmentStore] = {}
        for record in self.records:
            if record.status == "ready" and not self._there(record):
                self._lost(record)

    # -- finding ---------------------------------------------------------------------------------------------------
    def find(self, key: Key, name: str) -> Record:
        """A key's context. Ids of others and ids of none take the same path.

        Raises:
            Refusal: there is none, or its time is over.
        """
        record = self.records.get(tenant_of(key.name), name) if ID.fullmatch(name) else None
        if record is not None and self._expired(record):
            self.remove(record)
            record = None
        if record is None:
            raise Refusal(404, "context_not_found", "there is no such context.")
        return record

    def of(self, key: Key, everybody: bool = False) -> list[Record]:
        """A key's contexts, or, for an administrator, all; the oldest first."""
        found = list(self.records) if everybody else self.records.of(tenant_of(key.name))
        return [record for record in found if not self._expired(record)]

    async def asked(self, key: Key, name: str, model: str, wait: bool, seconds: float) -> Record:
        """A context that a request asks, ready. It counts as used.

        Args:
            wait: for one that is being made, up to `seconds`.

        Raises:
            Refusal: there is none, it is of another model, it is not ready, or it failed.
        """
        record = self.find(key, name)
        if record.model != model:
            raise Refusal(400, "invalid_value", f"this context is of the model {record.model}.", "model")
        await self._ready(record, wait, seconds)
        self._used(record)
        self.hits += 1
        return record

    async def cut(
        self, key: Key, model: str, wanted: dict[str, Any], ttl: float, wait: bool, seconds: float
    ) -> tuple[Record, bool]:
        """The context that a request's prompt begins with, ready, and whether it is new; see `create` and `asked`."""
        about: dict[str, Any] = {"name": None, "metadata": {}, "ttl": ttl, "pinned": False}
        record, new = await self.create(key, model, wanted, about)
        if ttl > record.ttl:
            self.change(record, {"ttl": ttl})
        await self._ready(record, wait, seconds)
        if new:
            self._used(record)
        else:
            self.hits += 1
        return record, new

    async def _ready(self, record: Record, wait: bool, seconds: float) -> None:
        """Wait for a context that is being made."""
        if not record.done.is_set():
            if not wait:
                raise Refusal(409, "context_not_ready", "this context is being made.", headers={"Retry-After": "1"})
            self.lift(record)
            try:
                await asyncio.wait_for(record.done.wait(), seconds)
            except TimeoutError:
                raise overdue() from None
        if record.status != "ready" or not self._there(record):
            why = "" if record.error is None else f" ({record.error['message']})"
            raise Refusal(409, "context_failed", f"this context could not be made{why}; create it again.", headers=NO_RETRY)

    async def parent(self, key: Key, name: str, model: str, wait: float) -> Record:
        """A context that another is to go on from, ready within `wait` seconds. It counts as used.

        Raises:
            Refusal: see `asked`; or it does not say how it was compressed.
        """
        record = self.find(key, name)
        self.lift(record)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(record.done.wait(), wait)
        await self.asked(key, name, model, False, 0.0)
        if record.compress is None and record.compression["method"] is not None:
            raise Refusal(409, "context_failed", "an earlier version made this context; create it again.", headers=NO_RETRY)
        return record

    # -- making ----------------------------------------------------------------------------------------------------
    async def create(
        self, key: Key, model: str, wanted: dict[str, Any], about: Mapping[str, Any], parent: Record | None = None
    ) -> tuple[Record, bool]:
        """Make a context, unless it is there, and say whether it is new.

        Args:
            wanted: see `laconic.serve.worker.contexts.Wanted`.
            about: `name`, `metadata`, `ttl`, `pinned`. `parent`: what it goes on from.

        Raises:
            Refusal: it cannot be made, or the key's quota is used up.
        """
        scheduler, compress = self._schedulers[model], wanted["compress"]
        wanted = {**wanted, "parent": None if parent is None else vars(parent.stored)}
        said = await scheduler.backend.call("prepare_context", wanted=wanted)
        tenant = tenant_of(key.name)
        name = id_of(self.records.secret(tenant), said["digest"])
        known = self.records.get(tenant, name)
        if known is not None and not self._expired(known) and known.status != "failed" and self._whole(known):
            self._used(known)
            return known, False
        self._make_room(tenant, about["pinned"], None if parent is None else parent.id)
        now = self._clock()
        record = Record(
            id=name,
            tenant=tenant,
            owner=key.name,
            form=said["form"],
            model=model,
            ttl=about["ttl"],
            created_at=now,
            last_used_at=now,
            expires_at=None if about["pinned"] else now + about["ttl"],
            name=about["name"],
            metadata=about["metadata"],
            pinned=about["pinned"],
            parent=None if parent is None else parent.id,
            compress=None if compress is None else {**compress, "protect": ()},
            compression={x: said[x] for x in ("method", "parameters", "budget", "query_aware")},
            tokens={"original": said["tokens"], "kept": None},
            fingerprint={x: scheduler.backend.facts.get(x) for x in ("fingerprint", "dtype")},
            warnings=said["warnings"],
            mine=True,
        )
        if known is not None:
            self.remove(known)
        self.records.write(record)
        self._queue(scheduler, key, record, wanted)
        return record, True

    def _queue(self, scheduler: Scheduler, key: Key, record: Record, wanted: dict[str, Any]) -> None:
        limit = self._config.limits_of(key.name).quota_bytes
        message = {"op": "build", "id": record.id, "context": vars(record.stored), "wanted": wanted, "limit": limit}
        entered = time.monotonic()

        def begin() -> None:
            record.status = "running"
            record.seconds["queue"] = round(time.monotonic() - entered, 4)

        def hear(said: dict[str, Any]) -> None:
            self._builds.pop(record.id, None)
            if self.records.get(record.tenant, record.id) is not record:  # deleted meanwhile
                self._unlink(record)
            elif said["event"] == "built":
                self._finished(record, said["facts"])
            else:
                error = Refusal(**said["error"])
                record.status, record.error = "failed", {"code": error.code, "message": error.message}
                self.records.write(record)
            record.done.set()

        build = Build(record.id, message, hear, begin)
        self._builds[record.id] = build
        scheduler.build(build)

    def _finished(self, record: Record, facts: Mapping[str, Any]) -> None:
        record.status = "ready"
        record.lives_from(self._clock())
        record.tokens, record.bytes = dict(facts["tokens"]), dict(facts["bytes"])
        record.protected = facts["protected"]
        record.compression |= {"asked": facts["asked"], "achieved": facts["achieved"]}
        record.compression["protected_tokens"] = sum(length for _, length in record.protected)
        record.seconds |= {name: round(value, 4) for name, value in facts["seconds"].items()}
        record.warnings += [note for note in facts["warnings"] if note not in record.warnings]
        self.made += 1
        self.records.write(record)
        if record.pinned:
            with contextlib.suppress(StoreError):
                self._store(record.tenant).pin(record.id)
        for other in self.records.of(record.tenant):  # the store may have made room
            if other.status == "ready" and not self._there(other):
                self.remove(other)

    def lift(self, record: Record) -> None:
        """A request waits for it: it is made next."""
        if record.id in self._builds:
            self._builds[record.id].urgent = True

    def _make_room(self, tenant: str, pinned: bool, parent: str | None) -> None:
        """Where a tenant has as many contexts as it may, those go that were not used for longest and that nobody needs now.

        Args:
            parent: of what is to be made.

        Raises:
            Refusal: its quota is used up all the same, or the disk is full. Nothing has gone then.
        """
        limits, mine = self._config.limits, self.records.of(tenant)
        under_way = [record for record in mine if not record.done.is_set()]
        if len(under_way) >= limits.quota_builds:
            raise Refusal(429, "rate_limit_exceeded", "too many contexts are being made.", headers={"Retry-After": "5"})
        needed = {parent, *(record.parent for record in under_way), *self._asked()}
        idle = [record for record in mine if record.done.is_set() and not record.pinned and record.id not in needed]
        idle.sort(key=lambda record: (record.status == "ready", record.last_used_at))
        held = sum(record.bytes.get("file", 0) for record in mine if record.pinned)
        if len(mine) - len(idle) >= limits.quota_contexts or (pinned and held >= limits.quota_pinned_bytes):
            raise Refusal(429, "quota_exceeded", "this key has as many contexts as it may; delete some.", headers=NO_RETRY)
        self._config.store.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if shutil.disk_usage(self._config.store.folder).free < self._config.store.min_free:
            raise Refusal(503, "disk_full", "the store has no space left.", headers={"Retry-After": "60"})
        for record in idle[: max(0, len(mine) - limits.quota_contexts + 1)]:
            self.remove(record)

    def _asked(self) -> set[str]:
        """Names of the contexts that requests in the queues ask."""
        queued = [ticket for one in self._schedulers.values() for ticket in (*one.waiting, *one.running)]
        return {ticket.job.context.key for ticket in queued if ticket.job.context is not None}

    # -- changing --------------------------------------------------------------------------------------------------
    def change(self, record: Record, about: Mapping[str, Any]) -> None:
        """Give a context another name, metadata or time to live, or pin it."""
        if about.get("pinned") is not None and about["pinned"] != record.pinned:
            record.pinned = about["pinned"]
            if record.status == "ready":
                self._store(record.tenant).pin(record.id, record.pinned)
        for field in ("name", "metadata", "ttl"):
            if about.get(field) is not None:
                setattr(record, field, about[field])
        record.expires_at = None if record.pinned else self._clock() + record.ttl
        self.records.write(record)

    def remove(self, record: Record) -> None:
        """Delete a context now; one that waits is not made, one that is being made is dropped when it is there."""
        build = self._builds.pop(record.id, None)
        if build is not None:
            self._schedulers[record.model].abandon(build)
        self.records.remove(record)
        self._unlink(record)
        record.status = "failed"
        record.done.set()

    def sweep(self) -> None:
        """Remove what is past its time."""
        for record in self.records:
            if self._expired(record):
                self.remove(record)

    async def sweeping(self) -> None:
        """Sweep again and again."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep()

    async def following(self) -> None:
        """Find out, again and again, what other servers have made."""
        while self._config.store.shared:
            await asyncio.sleep(FOLLOW_S)
            self.records.refresh()

    def close(self) -> None:
        """The server ends: what it is making never will be."""
        for record in self.records:
            if record.mine and not record.done.is_set():
                record.status, record.error = "failed", {"code": "interrupted", "message": "the server was stopped."}
                self.records.write(record)
                record.done.set()

    # -- its file --------------------------------------------------------------------------------------------------
    def _store(self, tenant: str) -> SegmentStore:
        if tenant not in self._stores:
            self._stores[tenant] = SegmentStore(self._config.store.folder, namespace=tenant)
        return self._stores[tenant]

    def _there(self, record: Record) -> bool:
        """Whether its file has not been evicted or removed."""
        try:
            return self._store(record.tenant).entry(record.id) is not None
        except StoreError:
            return False

    def _whole(self, record: Record) -> bool:
        return record.status != "ready" or self._there(record)

    def _lost(self, record: Record) -> None:
        record.status, record.error = "failed", {"code": "corrupt", "message": "its file is missing or damaged."}
        self.records.write(record)

    def _unlink(self, record: Record) -> None:
        with contextlib.suppress(StoreError):
            self._store(record.tenant).remove(record.id)
        with contextlib.suppress(Refusal):
            self._schedulers[record.model].backend.send({"op": "drop", "id": record.id, "context": vars(record.stored)})

    def _used(self, record: Record) -> None:
        record.uses += 1
        record.lives_from(self._clock())
        with contextlib.suppress(StoreError):
            self._store(record.tenant).touch(record.id)

    def _expired(self, record: Record) -> bool:
        return record.expires_at is not None and record.done.is_set() and record.expires_at <= self._clock()

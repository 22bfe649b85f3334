"""Random sequences of acts on a store, beside a dictionary that does the same."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.memory_files import key, writer
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from laconic.errors import StoreError
from laconic.memory.index import FILE
from laconic.memory.store import DamagedError, SegmentStore

NAMES = st.integers(0, 4)
TTL = st.one_of(st.none(), st.integers(-1, 20))


@dataclass
class Kept:
    """An entry of the slow store."""

    content: bytes
    expires: float | None
    pinned: bool
    used: float
    damaged: bool = False


class StoreMachine(RuleBasedStateMachine):
    """The store under test beside `model`, which evicts by looking at everything."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.now = 1_000_000.0
        self.model: dict[int, Kept] = {}
        self.open()

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def clock(self) -> float:
        return self.now

    def alive(self, kept: Kept) -> bool:
        return kept.pinned or kept.expires is None or kept.expires > self.now

    def tick(self) -> None:
        self.now += 1.0

    @rule()
    def open(self) -> None:
        """Another process goes on."""
        self.store = SegmentStore(self.root, limit=2500, clock=self.clock)

    @rule(seconds=st.integers(1, 15))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(name=NAMES, numbers=st.sampled_from([10, 100, 200]), ttl=TTL, pinned=st.booleans())
    def put(self, name: int, numbers: int, ttl: int | None, pinned: bool) -> None:
        self.tick()
        writer(name, numbers)(self.root / "content")
        content = (self.root / "content").read_bytes()
        there = self.model.get(name)
        if there is not None and self.alive(there) and not there.damaged:
            self.store.put(key(name), writer(name, numbers), ttl=ttl, pinned=pinned)
            there.used = self.now
            return
        others = {n: kept for n, kept in self.model.items() if n != name and not kept.damaged}
        if len(content) + sum(len(kept.content) for kept in others.values() if kept.pinned) > 2500:
            with pytest.raises(StoreError, match="do not fit"):
                self.store.put(key(name), writer(name, numbers), ttl=ttl, pinned=pinned)
            return
        self.store.put(key(name), writer(name, numbers), ttl=ttl, pinned=pinned)
        self.evict(others, 2500 - len(content))
        self.model[name] = Kept(content, None if ttl is None else self.now + ttl, pinned, self.now)

    def evict(self, among: dict[int, Kept], limit: int) -> tuple[int, int]:
        """How many went because of their time, and how many for the limit."""
        expired = [n for n, kept in among.items() if not self.alive(kept)]
        for name in expired:
            del self.model[name], among[name]
        evicted = 0
        while sum(len(kept.content) for kept in among.values()) > limit:
            free = [(kept.used, key(n), n) for n, kept in among.items() if not kept.pinned]
            if not free:
                break
            del self.model[min(free)[2]], among[min(free)[2]]
            evicted += 1
        return len(expired), evicted

    @rule(name=NAMES)
    def get(self, name: int) -> None:
        self.tick()
        kept = self.model.get(name)
        if kept is not None and kept.damaged:
            with pytest.raises(DamagedError):
                self.store.get(key(name))
        elif kept is None or not self.alive(kept):
            assert self.store.get(key(name)) is None
        else:
            path = self.store.get(key(name))
            assert path is not None and path.read_bytes() == kept.content
            kept.used = self.now

    @rule(name=NAMES, pinned=st.booleans(), ttl=TTL, pins=st.booleans())
    def change(self, name: int, pinned: bool, ttl: int | None, pins: bool) -> None:
        self.tick()
        kept = self.model.get(name)

        def act():
            return self.store.pin(key(name), pinned) if pins else self.store.extend(key(name), ttl)

        if kept is None or kept.damaged or not self.alive(kept):
            with pytest.raises(StoreError, match="truncated" if kept is not None and kept.damaged else "holds no"):
                act()
            return
        act()
        kept.used = self.now
        if pins:
            kept.pinned = pinned
        else:
            kept.expires = None if ttl is None else self.now + ttl

    @rule(name=NAMES)
    def remove(self, name: int) -> None:
        assert self.store.remove(key(name)) == (self.model.pop(name, None) is not None)

    @rule()
    def gc(self) -> None:
        self.tick()
        swept = self.store.gc()
        counts = self.evict({n: kept for n, kept in self.model.items() if not kept.damaged}, 2500)
        assert (len(swept.expired), len(swept.evicted), swept.leftovers) == (*counts, 0)

    @rule(name=NAMES)
    def damage(self, name: int) -> None:
        """A record loses its end; the entry is listed no more and has no part in the limit."""
        if name in self.model and not self.model[name].damaged:
            file = self.store.folder / f"{key(name)}.json"
            file.write_bytes(file.read_bytes()[:-5])
            self.model[name].damaged = True
            assert [d.key for d in self.store.verify()] == sorted(key(n) for n, kept in self.model.items() if kept.damaged)

    @rule()
    def lose_the_index(self) -> None:
        (self.store.folder / FILE).unlink(missing_ok=True)

    @invariant()
    def the_listing_is_right(self) -> None:
        listed = {e.key: (e.bytes, e.expires, e.pinned, e.used) for e in self.store.entries()}
        assert listed == {
            key(n): (len(kept.content), kept.expires, kept.pinned, kept.used)
            for n, kept in self.model.items()
            if not kept.damaged
        }


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=25, stateful_step_count=25)

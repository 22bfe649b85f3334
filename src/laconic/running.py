"""The calls that run in one session: several threads may call at once, each on a cache of its own; and what is held."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakSet

from torch import Tensor

from laconic.errors import SessionError

if TYPE_CHECKING:
    from laconic.cache.cache import CompressedCache

_HOLDING: ContextVar[tuple[Running, ...]] = ContextVar("laconic_holding", default=())
"""The sessions whose calls are held in this thread (or task), once for every `hold` that is open."""


@dataclass(eq=False)
class Call:
    """One call of the model, from its pre-hook to its post-hook; a model runs in the thread that calls it.

    Attributes:
        cache: of this call, and of no other while it runs.
        ids: token ids [B, T] that the model was called with; None if it was called with embeddings.
        generated: how many of the tokens, the last ones, are no prompt; see `Step.generated`.
        began: when, by `time.perf_counter`.
    """

    cache: CompressedCache
    ids: Tensor | None
    generated: int
    began: float = field(default_factory=lambda: time.perf_counter())  # looked up now: tests put a clock of their own there


class _OfThread(threading.local):
    """What every thread has for itself."""

    latest: CompressedCache | None = None


class Running:
    """The calls of one session. Everything that a call knows is kept by thread, or by cache."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._calls: dict[int, Call] = {}  # by thread
        self._here = _OfThread()
        self._latest: CompressedCache | None = None
        self._used: WeakSet[CompressedCache] = WeakSet()
        self._held: list[CompressedCache] = []

    # -- calls -----------------------------------------------------------------------------------------------------
    @contextmanager
    def begin(self, cache: CompressedCache, ids: Tensor | None, generated: int) -> Iterator[None]:
        """A call of this thread begins, on `cache`; until the block is left, no call of another thread does. The block may
        refuse the call, by an exception; then the latest cache is still that of the call before.

        Raises:
            SessionError: a call of another thread runs on this cache, or one that failed has left it half written.
        """
        thread = threading.get_ident()
        with self._lock:
            self._drop(thread)  # a call that was interrupted has never ended
            if self._in_use(cache):
                raise SessionError(
                    "another thread's call is running on this cache; give each call a cache of its own (cache.fork() makes "
                    "one), or wait for the other one."
                )
            if cache.unfinished:
                raise SessionError(
                    "this cache was left half written when a call failed; start again without past_key_values."
                )
            self._calls[thread] = Call(cache, ids, generated)
            self._used.add(cache)
            yield
            self.latest = cache

    @property
    def call(self) -> Call | None:
        """The call that runs in this thread."""
        return self._calls.get(threading.get_ident())

    def end(self) -> Call | None:
        """The call of this thread ends; None if it never began."""
        with self._lock:
            return self._calls.pop(threading.get_ident(), None)

    @property
    def others(self) -> bool:
        """Whether calls of other threads are running."""
        with self._lock:
            return any(thread != threading.get_ident() for thread in self._calls)

    def _in_use(self, cache: CompressedCache) -> bool:
        return any(call.cache is cache for call in self._calls.values())

    def _drop(self, thread: int) -> None:
        if (left := self._calls.pop(thread, None)) is not None:
            left.cache.step = None

    # -- caches ----------------------------------------------------------------------------------------------------
    @property
    def latest(self) -> CompressedCache | None:
        """The cache of this thread's latest call; in a thread that has made none, of the latest call of all."""
        return self._latest if self._here.latest is None else self._here.latest

    @latest.setter
    def latest(self, cache: CompressedCache | None) -> None:
        self._here.latest = self._latest = cache

    def last(self) -> CompressedCache:
        """`latest`, or a `SessionError` if there is none."""
        if self.latest is None:
            raise SessionError("nothing has run in this session yet; call the model that was given to compress().")
        return self.latest

    def close(self) -> None:
        """The session closes: nothing more comes into its caches."""
        for cache in self._used:
            cache.close()
        self._calls.clear()
        self._used.clear()

    # -- what is held ----------------------------------------------------------------------------------------------
    @contextmanager
    def hold(self) -> Iterator[None]:
        """Until the block is left, calls of this thread keep all that comes in, and so do those of any other thread on the
        cache that was this thread's latest."""
        cache, outside = self._here.latest, _HOLDING.get()
        with self._lock:
            if cache is not None and not cache.unfinished and not self._in_use(cache):
                cache.settle()
            self._held += [] if cache is None else [cache]
        _HOLDING.set((*outside, self))
        try:
            yield
        finally:
            _HOLDING.set(outside)
            if cache is not None:
                self._held.remove(cache)

    def holds(self, cache: CompressedCache) -> bool:
        """Whether a call that this thread makes on `cache` is held."""
        return self in _HOLDING.get() or any(held is cache for held in self._held)

"""One model's queue: who is answered next, together with whom, and who is turned away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from laconic.serve.config import Limits, Model
from laconic.serve.front.backend import Backend, Launch, restarting, spawned
from laconic.serve.front.builds import Build
from laconic.serve.front.rates import Rates
from laconic.serve.front.tickets import Ticket, Waiting
from laconic.serve.job import Job
from laconic.serve.refusal import NO_RETRY, Refusal

BUILDS_IN_TURN = 3
"""While both wait, one turn in so many builds a context."""


class Scheduler:
    """The queue before one worker.

    Args:
        settings: for the worker. `clock`: seconds, for deadlines.
    """

    def __init__(
        self,
        model: Model,
        limits: Limits,
        settings: Mapping[str, Any],
        launch: Launch = spawned,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.model, self._limits, self._clock = model, limits, clock
        self.backend = Backend(settings, self._idle, self._down, launch)
        self.waiting, self.builds, self.rates = Waiting(), list[Build](), Rates()
        self.running: list[Ticket] = []
        self._building: Build | None = None
        self._built = False  # in the turn before this one
        self._busy = True  # until the worker says that it is idle
        self._turns = 0
        self._preparing = False  # after a restart, those who wait again
        self._soon: asyncio.TimerHandle | None = None
        self._watching: asyncio.TimerHandle | None = None  # of the batch that runs
        self._inflight: dict[str, int] = {}

    # -- requests --------------------------------------------------------------------------------------------------
    async def enter(self, job: Job, key: str, most: int, shared: int, hear: Callable[[dict[str, Any]], None]) -> Ticket:
        """Put a job into the queue.

        Args:
            most: requests of this key at once. `shared`: tokens of the context that it names.
            hear: receives what the worker says of the job, ``failed`` if it never gets there.

        Raises:
            Refusal: the worker refuses its prompt, or the queue is full.
        """
        if len(self.waiting) >= self.model.max_queue:
            raise Refusal(429, "queue_full", "the queue is full.", headers=self._after(self.estimate()))
        self.count(key, most)
        now = self._clock()
        try:
            said = await self.backend.call("prepare", id=job.id, job=job.facts())
            ticket = Ticket(job, key, said["tokens"], shared, said["shares"], now, now + job.seconds, hear)
            self._admit(ticket)
            return ticket
        except BaseException:
            self.release(key)
            self._tell(job.id)  # it may have prepared the prompt, although nobody has waited for that
            raise

    def count(self, key: str, most: int) -> None:
        """Count one more request of a key, until `release`.

        Raises:
            Refusal: it has `most` already.
        """
        if self._inflight.get(key, 0) >= most:
            raise Refusal(
                429, "rate_limit_exceeded", f"this key has {most} requests at once already.", headers=self._after(1)
            )
        self._inflight[key] = self._inflight.get(key, 0) + 1

    def _admit(self, ticket: Ticket) -> None:
        wait = self.estimate()
        full = len(self.waiting) >= self.model.max_queue or (
            len(self.waiting) > 0 and self.waiting.tokens + ticket.own > self.model.max_queue_tokens
        )
        if full or wait > ticket.job.seconds:
            raise Refusal(429, "queue_full", "the queue is full.", headers=self._after(wait))
        self.waiting.add(ticket)
        self._kick(0.0 if not ticket.shares else self._limits.batch_wait_s)

    def leave(self, ticket: Ticket) -> None:
        """A request is over, answered or not."""
        waited = self.waiting.remove(ticket)
        if waited or ticket in self.running:
            self._tell(ticket.job.id)
        self.backend.forget(ticket.job.id)
        self.release(ticket.key)

    def _tell(self, request: str) -> None:
        """Let the worker drop a request; where there is no worker, there is nothing to drop."""
        try:
            self.backend.send({"op": "cancel", "id": request})
        except Refusal:
            return

    def release(self, key: str) -> None:
        """A counted request of a key is over."""
        self._inflight[key] -= 1
        if not self._inflight[key]:
            del self._inflight[key]

    def estimate(self) -> float:
        """Seconds until a request that comes now would begin."""
        ahead = [*self.waiting, *self.running]
        prompt = sum(ticket.own for ticket in ahead)
        return self.rates.seconds(prompt, sum(min(t.job.max_tokens or 256, 256) for t in ahead))

    @staticmethod
    def _after(seconds: float) -> dict[str, str]:
        return {"Retry-After": str(max(1, min(120, round(seconds))))}

    # -- contexts --------------------------------------------------------------------------------------------------
    def build(self, build: Build) -> None:
        """Put the making of a context into the queue."""
        self.builds.append(build)
        self._kick(0.0)

    def abandon(self, build: Build) -> None:
        """A context that waits is no longer wanted."""
        if build in self.builds:
            self.builds.remove(build)

    # -- turns -----------------------------------------------------------------------------------------------------
    def _kick(self, wait: float) -> None:
        if self._busy or self._soon is not None:
            return
        self._soon = asyncio.get_running_loop().call_later(wait, self._turn)

    def _turn(self) -> None:
        """Give the worker its next work."""
        self._soon = None
        if self._busy or self._preparing or self.backend.status != "ready":
            return
        self._turns += 1
        build = self._next_build()
        if build is not None:
            self._begin_build(build)
            return
        batch = self._batch()
        if not batch:
            if self.builds:
                self._kick(0.0)
            return
        now = self._clock()
        jobs = [replace(ticket.job, seconds=ticket.deadline - now).facts() for ticket in batch]
        self.running, self._busy = batch, True
        for ticket in batch:
            self.backend.listen(ticket.job.id, self._listener(ticket))
            ticket.hear({"event": "started", "id": ticket.job.id, "queue": now - ticket.entered, "batch": len(batch)})
        self._send({"op": "run", "jobs": jobs})
        self._watch(max(ticket.deadline for ticket in batch), batch)

    def _batch(self) -> list[Ticket]:
        """The next batch without those whose time is over."""
        while batch := self.waiting.next_batch(self.model.max_batch):
            late = [ticket for ticket in batch if ticket.deadline <= self._clock()]
            for ticket in late:
                self._tell(ticket.job.id)
                ticket.hear({"event": "failed", "id": ticket.job.id, "count": 0, "error": overdue().facts()})
            if kept := [ticket for ticket in batch if ticket not in late]:
                return kept
        return []

    def _next_build(self) -> Build | None:
        """One that a request waits for goes first, but while others wait for answers not twice in succession: requests that
        bring new contexts again and again would stop all answers."""
        waits = len(self.waiting) > 0
        due = not waits or self._turns % BUILDS_IN_TURN == 0
        urgent = None if waits and self._built else next((build for build in self.builds if build.urgent), None)
        chosen = urgent or (self.builds[0] if self.builds and due else None)
        self._built = chosen is not None
        if chosen is not None:
            self.builds.remove(chosen)
        return chosen

    def _begin_build(self, build: Build) -> None:
        self._building, self._busy = build, True
        build.begin()
        self.backend.listen(build.name, build.hear)
        self._send(build.message)

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self.backend.send(message)
        except Refusal as refusal:  # the worker is ending; `_down` cleans up after it, so only its listeners are told
            for ticket in self.running:
                ticket.hear({"event": "failed", "id": ticket.job.id, "count": 0, "error": refusal.facts()})

    def _listener(self, ticket: Ticket) -> Callable[[dict[str, Any]], None]:
        def hear(message: dict[str, Any]) -> None:
            if message["event"] == "done":
                self.rates.learn(message["figures"], ticket.own)
            ticket.hear(message)

        return hear

    def _watch(self, deadline: float, batch: list[Ticket]) -> None:
        """End a worker whose batch is still running long after its deadline: it hangs in a pass."""
        wait = max(0.0, deadline - self._clock()) + self._limits.overdue_s

        def look() -> None:
            if self.running is batch and self._busy:
                self.backend.kill()

        self._watching = asyncio.get_running_loop().call_later(wait, look)

    def _unwatch(self) -> None:
        """The batch is over; a timer would hold its prompts and answers until the deadline."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def _idle(self) -> None:
        """The worker has nothing to do."""
        self._unwatch()
        for ticket in self.running:
            self.backend.forget(ticket.job.id)
        if self._building is not None:
            self.backend.forget(self._building.name)
        self.running, self._building, self._busy = [], None, False
        if len(self.waiting) or self.builds:
            self._turn()

    def _down(self) -> None:
        """The worker has ended: those who wait are prepared again by the next one."""
        self._unwatch()
        self.running, self._building, self._busy = [], None, True
        if not self._preparing:
            self._preparing = True
            asyncio.get_running_loop().create_task(self._again())

    async def _again(self) -> None:
        await asyncio.sleep(0)  # the backend starts the next worker, or gives up
        alive = await self.backend.ready()
        for ticket in list(self.waiting):
            try:
                if not alive:
                    raise restarting()
                await self.backend.call("prepare", id=ticket.job.id, job=ticket.job.facts())
            except Refusal as refusal:
                if self.waiting.remove(ticket):
                    ticket.hear({"event": "failed", "id": ticket.job.id, "count": 0, "error": refusal.facts()})
        self._preparing = False
        self._turn()


def overdue() -> Refusal:
    """A request whose time is over."""
    return Refusal(504, "deadline_exceeded", "the deadline passed before the answer was complete.", headers=NO_RETRY)

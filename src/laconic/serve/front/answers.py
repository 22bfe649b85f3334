"""From an understood request to its response: through the queue, whole or as a stream, cancelled when the client leaves."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, Protocol

from fastapi import Request
from starlette.responses import JSONResponse, Response

from laconic.serve.config import Config, Limits
from laconic.serve.front import sse
from laconic.serve.front.asking import Ask
from laconic.serve.front.inbox import Inbox
from laconic.serve.front.records import Record
from laconic.serve.front.scheduler import Scheduler
from laconic.serve.front.tickets import Ticket
from laconic.serve.front.usage import report, usage
from laconic.serve.refusal import Refusal
from laconic.version import __version__


class Running:
    """One request for answers, from the queue to its last token.

    Args:
        ask: what was asked. `find`: the context that it asks, if any, ready, and whether it was made for it.
        key, most: name of the key, and how many requests it may have at once.
        record: what is logged.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        ask: Ask,
        key: str,
        most: int,
        undelivered: int,
        record: dict[str, Any],
        find: Callable[[], Awaitable[tuple[Record, bool]]] | None,
    ):
        self._scheduler, self.ask, self._key, self._most, self.record = scheduler, ask, key, most, record
        self._find, self.job = find, ask.job
        self._found: Record | None = None
        self._written = 0  # tokens of a context that was made for this request
        self.inbox = Inbox(self.job.n, undelivered, self._leave)
        self._ticket: Ticket | None = None
        record |= {"model": ask.target.model.name, "preset": ask.preset, "context": ask.context, "cache_write_tokens": 0}

    async def enter(self) -> None:
        """Wait for the context, then take a place in the queue. `leave` has to follow.

        Raises:
            Refusal: the request is turned away.
        """
        shared = 0
        if self._find is not None:
            self._scheduler.count(self._key, self._most)  # no context is made for a request that is refused
            began = time.monotonic()
            try:
                found, new = await self._find()
            finally:
                self._scheduler.release(self._key)
            left = max(self.job.seconds - (time.monotonic() - began), 0.001)
            self._found, self.job = found, replace(self.job, context=found.stored, seconds=left)
            shared = found.tokens["original"]
            self._written = shared if new else 0
            self.ask.context = found.id
            self.record |= {"context": found.id, "cache_write_tokens": self._written}
        self._ticket = await self._scheduler.enter(self.job, self._key, self._most, shared, self.inbox.hear)

    def _leave(self) -> None:
        if self._ticket is not None:
            self._scheduler.leave(self._ticket)
            self._ticket = None

    def leave(self) -> None:
        """The request is over."""
        self._leave()
        counts = sum(choice.count for choice in self.inbox.choices)
        self.record |= {"completion_tokens": counts, "queue": round(self.inbox.queue, 4)}
        if self.inbox.figures:
            figures = self.figures
            names = ("prompt_tokens", "cached_tokens", "batch", "kept_tokens")
            self.record |= {name: figures[name] for name in names}
            self.record |= {"prefill": figures["seconds"]["prefill"], "compress": figures["seconds"]["compress"]}
            self.record |= {"decode": figures["seconds"]["decode"], "methods": "+".join(figures["methods"])}

    @property
    def figures(self) -> dict[str, Any]:
        """Those of the worker, with the making of a context that was made for this request: its tokens were not cached."""
        figures = {**self.inbox.figures, "cache_write_tokens": self._written}
        figures["seconds"] = {"queue": self.inbox.queue, **figures["seconds"]}
        if self._found is not None:
            figures["warnings"] = list(dict.fromkeys([*self._found.warnings, *figures["warnings"]]))
        if self._found is not None and self._written:
            figures["cached_tokens"] -= self._written
            for name, seconds in figures["seconds"].items():
                figures["seconds"][name] = seconds + self._found.seconds.get(name, 0.0)
        return figures

    def extra(self) -> dict[str, Any]:
        """`usage` and `laconic` of the answer."""
        figures = self.figures
        cache = "write" if self._written else "hit" if figures["cached_tokens"] else "none"
        return {"usage": usage(figures), "laconic": report(figures, self.ask.context, cache, self.ask.ignored)}

    async def whole(self, request: Request) -> None:
        """Enter, and wait for the end of the answer, or of the client's patience.

        Raises:
            Refusal: the request failed.
            ClientLeft: the client did.
        """
        work = asyncio.ensure_future(self._all())
        left = asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait([work, left], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientLeft
            work.result()
        finally:
            for task in (work, left):
                task.cancel()
                with contextlib.suppress(BaseException):
                    await task

    async def _all(self) -> None:
        await self.enter()
        async for _ in self.inbox.pieces():
            pass


class ClientLeft(Exception):
    """The client has closed the connection; nobody reads an answer."""


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def fingerprint(scheduler: Scheduler) -> str:
    """`system_fingerprint`: weights, dtype, template and versions."""
    return f"laconic-{__version__}-{scheduler.backend.facts.get('system_fingerprint', '')}"


class Shape(Protocol):
    """How answers look, whole and as a stream."""

    def whole(self, running: Running) -> dict[str, Any]: ...

    def pieces(self, running: Running) -> AsyncIterator[bytes]: ...

    def failed(self, refusal: Refusal) -> list[bytes]: ...


async def respond(request: Request, config: Config, running: Running, shape: Shape) -> Response:
    """Answer a request, whole or as a stream."""
    if running.ask.stream:
        return await _streamed(request, config.limits, running, shape)
    try:
        await running.whole(request)
        return JSONResponse(shape.whole(running))
    except ClientLeft:
        request.state.record["left"] = True
        return Response(status_code=204)
    finally:
        running.leave()


async def _streamed(request: Request, limits: Limits, running: Running, shape: Shape) -> Response:
    """A stream. It begins before the request has entered, where that takes long: a context may have to be made first."""

    async def pieces() -> AsyncIterator[bytes]:
        await running.enter()
        async for piece in shape.pieces(running):
            yield piece

    def told(refusal: Refusal) -> list[bytes]:
        running.record["code"] = refusal.code
        return shape.failed(refusal)

    stream = sse.Beginning(pieces(), told, limits.first_byte_s, limits.keep_alive_s)

    async def end() -> None:
        try:
            await stream.close()  # before it leaves: it may be entering
        finally:
            running.leave()

    async def over() -> None:
        request.state.record["left"] = not stream.complete
        await end()

    try:
        await stream.begin()
    except BaseException:
        await end()
        raise
    return sse.Streamed(stream.rest(), over)

"""Server-sent events: an answer as a stream, its errors, and comments while nothing comes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from laconic.serve.refusal import Refusal

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def data(value: Any, event: str | None = None) -> bytes:
    """One event."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


class Beginning:
    """A stream whose first piece is waited for, so that an error before it still has a status of its own.

    Args:
        source: of bytes. `told`: an error as pieces of the stream, once the response has begun.
        patience: seconds after which it begins in any case. `keep_alive`: seconds of silence between comments.
    """

    def __init__(
        self, source: AsyncIterator[bytes], told: Callable[[Refusal], Iterable[bytes]], patience: float, keep_alive: float
    ):
        self._source, self._told, self._patience, self._keep_alive = source, told, patience, keep_alive
        self._next: asyncio.Task[bytes | None] | None = None
        self.complete = False
        """Whether all pieces have been taken."""

    async def begin(self) -> None:
        """Wait for the first piece.

        Raises:
            Refusal: the request failed before it.
        """
        self._next = self._ask()
        done, _ = await asyncio.wait([self._next], timeout=self._patience)
        if done:
            self._next.result()

    async def rest(self) -> AsyncIterator[bytes]:
        """All pieces, with comments between those that take long; an error ends them."""
        try:
            while True:
                self._next = self._next or self._ask()
                done, _ = await asyncio.wait([self._next], timeout=self._keep_alive)
                if not done:
                    yield KEEP_ALIVE
                    continue
                piece, self._next = self._next.result(), None
                if piece is None:
                    break
                yield piece
        except Refusal as refusal:
            for piece in self._told(refusal):
                yield piece
        self.complete = True

    async def close(self) -> None:
        """End the source, wherever the stream is."""
        if self._next is not None and not self._next.done():
            self._next.cancel()
            with contextlib.suppress(BaseException):
                await self._next
        await self._source.aclose()  # type: ignore[attr-defined]

    def _ask(self) -> asyncio.Task[bytes | None]:
        async def one() -> bytes | None:
            return await anext(self._source, None)

        return asyncio.create_task(one())


class Streamed(StreamingResponse):
    """The HTTP response of a stream.

    Args:
        over: called at the end, also where the client has left before the first piece, and the pieces are never asked for.
    """

    def __init__(self, pieces: AsyncIterator[bytes], over: Callable[[], Awaitable[None]]):
        super().__init__(pieces, media_type="text/event-stream; charset=utf-8", headers=HEADERS)
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._over()

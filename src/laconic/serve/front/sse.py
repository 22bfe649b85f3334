"""Server-sent events: an answer as a stream, its errors, and comments while nothing comes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from starlette.responses import StreamingResponse

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
        """All pieces, with comments between those that take long; an error ends them. Leaving it early ends the source."""
        task = self._next or self._ask()
        try:
            while True:
                done, _ = await asyncio.wait([task], timeout=self._keep_alive)
                if not done:
                    yield KEEP_ALIVE
                    continue
                piece = task.result()
                if piece is None:
                    return
                yield piece
                task = self._ask()
        except Refusal as refusal:
            for piece in self._told(refusal):
                yield piece
        finally:
            task.cancel()
            with contextlib.suppress(BaseException):
                await task
            await self._source.aclose()  # type: ignore[attr-defined]

    def _ask(self) -> asyncio.Task[bytes | None]:
        async def one() -> bytes | None:
            return await anext(self._source, None)

        return asyncio.create_task(one())


def response(pieces: AsyncIterator[bytes], headers: dict[str, str] | None = None) -> StreamingResponse:
    """The HTTP response of a stream."""
    return StreamingResponse(pieces, media_type="text/event-stream; charset=utf-8", headers={**HEADERS, **(headers or {})})

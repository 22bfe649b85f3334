"""What the worker says of one request, until it is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from laconic.serve.front.scheduler import overdue
from laconic.serve.refusal import Refusal


@dataclass
class Choice:
    """One answer so far."""

    text: str = ""
    tokens: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0
    finish: str | None = None


class Inbox:
    """The events of one request.

    Args:
        undelivered: tokens that may wait for a slow reader. `on_slow`: called, once, when more do.

    Attributes:
        choices: the answers so far. `figures`: once it is done. `queue`: seconds in the queue.
    """

    def __init__(self, n: int, undelivered: int, on_slow: Callable[[], None]):
        self.choices = [Choice() for _ in range(n)]
        self.figures: dict[str, Any] = {}
        self.queue = 0.0
        self._undelivered, self._on_slow = undelivered, on_slow
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._slow = False

    def hear(self, message: dict[str, Any]) -> None:
        self._events.put_nowait(message)
        if self._events.qsize() > self._undelivered and not self._slow:
            self._slow = True
            self._on_slow()

    async def pieces(self) -> AsyncIterator[tuple[int, dict[str, Any]]]:
        """Pieces of text as they come: which answer, and ``text``, ``tokens`` and, with the last one, ``finish``.

        Raises:
            Refusal: the request failed, or was too slowly read.
        """
        while True:
            message = await self._events.get()
            if self._slow:
                raise Refusal(400, "slow_reader", "the answer was read too slowly and has been cancelled.")
            event = message["event"]
            if event == "started":
                self.queue = message["queue"]
            elif event == "failed":
                raise Refusal(**message["error"])
            elif event == "done":
                self.figures = message["figures"]
                if any(choice.finish == "deadline" for choice in self.choices):
                    raise overdue()
                return
            elif event == "piece":
                choice = self.choices[message["row"]]
                choice.text += message["text"]
                choice.tokens += message.get("tokens", [])
                choice.count, choice.finish = message["count"], message.get("finish")
                yield message["row"], message

"""One worker process as the front sees it: started, listened to, ended, and started again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from laconic.serve.refusal import Refusal
from laconic.serve.wire import Message, Wire
from laconic.serve.worker import process

Status = Literal["loading", "ready", "worker_down", "stopped"]
RESTARTS, WITHIN_S = 3, 600.0
"""So many restarts in so many seconds, and the worker is given up."""
REPLY_S = 60.0
"""The longest that a worker's listening thread may take for a small thing."""


class Handle(Protocol):
    """Of a process."""

    @property
    def pid(self) -> int | None: ...

    def is_alive(self) -> bool: ...

    def join(self, timeout: float | None = None) -> None: ...

    def kill(self) -> None: ...


Launch = Callable[[Mapping[str, Any]], tuple[Wire, Handle]]


def spawned(settings: Mapping[str, Any]) -> tuple[Wire, Handle]:
    """A process of its own, and the wire to it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    handle = context.Process(target=process.run, args=(theirs, dict(settings)), name="laconic-worker", daemon=True)
    handle.start()
    theirs.close()
    return Wire(ours), handle


class Backend:
    """A worker process.

    Args:
        settings: for the worker, see `laconic.serve.worker.desk.Desk`. `launch`: starts it.
        on_idle: called when the worker has nothing to do. `on_down`: when it has ended without being asked to.

    Attributes:
        status: "ready" takes requests. `facts`: what the worker says of its model. `trouble`: why it is down.
        restarts: so far.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        on_idle: Callable[[], None],
        on_down: Callable[[], None],
        launch: Launch = spawned,
    ):
        self._settings, self._launch, self._on_idle, self._on_down = settings, launch, on_idle, on_down
        self.status: Status = "loading"
        self.facts: Message = {}
        self.trouble = ""
        self.restarts = 0
        self._begun: list[float] = []
        self._numbers = itertools.count()
        self._replies: dict[str, asyncio.Future[Message]] = {}
        self._listeners: dict[str, Callable[[Message], None]] = {}
        self._wire: Wire | None = None
        self._changed = asyncio.Event()

    # -- life ------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start the process; the running loop hears from it."""
        self._loop = asyncio.get_running_loop()
        self.status = "loading"
        self._wire, self._process = self._launch(self._settings)
        threading.Thread(target=self._listen, args=(self._wire,), name="worker-wire", daemon=True).start()

    async def ready(self) -> bool:
        """Wait until the worker is ready; False if it never will be."""
        while self.status == "loading":
            self._changed.clear()
            await self._changed.wait()
        return self.status == "ready"

    def stop(self) -> None:
        """End the process."""
        self.status = "stopped"
        self._end()

    def kill(self) -> None:
        """End a process that no longer listens; it is started again."""
        self._process.kill()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def _end(self) -> None:
        if self._wire is not None:
            with contextlib.suppress(OSError):
                self._wire.close()
        self._process.join(2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(5)

    # -- messages --------------------------------------------------------------------------------------------------
    async def call(self, op: str, **fields: Any) -> Message:
        """A question that the worker answers beside its work.

        Raises:
            Refusal: it refuses, or there is no worker.
        """
        name = fields.pop("id", None) or f"call-{next(self._numbers)}"
        future = self._loop.create_future()
        self._replies[name] = future
        try:
            self.send({"op": op, "id": name, **fields})
            return await asyncio.wait_for(future, REPLY_S)
        except TimeoutError:
            raise restarting() from None
        finally:
            self._replies.pop(name, None)

    def send(self, message: Message) -> None:
        """A `Refusal` if there is no worker."""
        if self._wire is None or self.status != "ready":
            code = "model_loading" if self.status == "loading" else "worker_restarting"
            raise Refusal(503, code, "the model is being loaded.", headers={"Retry-After": "5"})
        try:
            self._wire.send(message)
        except OSError:
            raise restarting() from None

    def listen(self, name: str, listener: Callable[[Message], None]) -> None:
        """Hand what the worker says of the request `name` to `listener`, until `forget`."""
        self._listeners[name] = listener

    def forget(self, name: str) -> None:
        self._listeners.pop(name, None)

    def _listen(self, wire: Wire) -> None:
        """In a thread: every message goes to the loop."""
        while (message := wire.receive()) is not None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                self._loop.call_soon_threadsafe(self._hear, message)
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._down, wire)

    def _hear(self, message: Message) -> None:
        event, name = message["event"], message.get("id", "")
        if event == "ready":
            self.facts, self.status = message["facts"], "ready"
            self._changed.set()
            self._on_idle()
        elif event == "unfit":
            self.trouble = message["message"]
        elif event == "idle":
            self._on_idle()
        elif event in ("reply", "refused") and name in self._replies and not self._replies[name].done():
            if event == "reply":
                self._replies[name].set_result(message)
            else:
                self._replies[name].set_exception(Refusal(**message["error"]))
        elif name in self._listeners:
            self._listeners[name](message)
        elif event == "failed" and name in self._replies and not self._replies[name].done():
            self._replies[name].set_exception(Refusal(**message["error"]))

    def _down(self, wire: Wire) -> None:
        """The worker has ended."""
        if wire is not self._wire or self.status == "stopped":
            return
        fit = bool(self.facts)
        self.status = "worker_down"
        for future in self._replies.values():
            if not future.done():
                future.set_exception(restarting())
        for name, listener in list(self._listeners.items()):
            listener({"event": "failed", "id": name, "count": 0, "error": restarting().facts()})
        self._end()
        now = time.monotonic()
        self._begun = [at for at in self._begun if now - at < WITHIN_S] + [now]
        self._changed.set()
        self._on_down()
        if fit and len(self._begun) <= RESTARTS:
            self.restarts += 1
            self.start()

    @property
    def given_up(self) -> bool:
        """Whether it will not be started again."""
        return self.status == "worker_down"


def restarting() -> Refusal:
    """What is told to whoever was being answered when a worker ended."""
    return Refusal(503, "worker_restarting", "the worker ended and is being started again.", headers={"Retry-After": "5"})

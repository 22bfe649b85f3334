"""The server as a process: it starts, says where it listens, and ends in good order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from laconic.serve.config import Config
from laconic.serve.front.app import build, settings_of
from laconic.serve.front.backend import Backend
from laconic.serve.front.house import House
from laconic.serve.refusal import Refusal

OK, FAILED, INTERRUPTED = 0, 1, 130
HEADER_BYTES = 16 * 1024
CONNECTIONS = 512
POLL_S = 0.05


def serve(config: Config, said: Callable[[str], None]) -> int:
    """Serve until a signal comes, and return the exit status.

    Args:
        said: receives lines for the operator.
    """
    offline(config)
    app, house = build(config)
    server = Server(
        uvicorn.Config(
            app,
            host=config.server.host,
            port=config.server.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            http="h11",
            h11_max_incomplete_event_size=HEADER_BYTES,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=2,
        ),
        house,
        said,
    )
    server.run()
    return server.status


def check(config: Config, said: Callable[[str], None]) -> int:
    """Load every model, warm it up, and leave."""
    offline(config)

    async def all_ready() -> int:
        status = OK
        for model in config.models:
            backend = Backend(settings_of(config, model), lambda: None, lambda: None)
            backend.start()
            ready = await backend.ready()
            said(f"{model.name}: {'ready' if ready else backend.trouble or 'the worker ended'}")
            status = status if ready else FAILED
            backend.stop()
        return status

    return asyncio.run(all_ready())


def offline(config: Config) -> None:
    """Nothing is downloaded while the server runs, unless that was allowed; workers inherit it."""
    if not config.server.allow_download:
        os.environ["HF_HUB_OFFLINE"] = "1"


class Server(uvicorn.Server):
    """uvicorn's, with a first signal after which running answers are finished, and a second one that ends everything.

    Attributes:
        status: for the process to exit with.
    """

    def __init__(self, config: uvicorn.Config, house: House, said: Callable[[str], None]):
        super().__init__(config)
        self._house, self._said, self.status = house, said, OK

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._house.draining:
            os._exit(INTERRUPTED)  # workers end with their wires
        self._house.draining = True
        self.status = INTERRUPTED if sig == signal.SIGINT else OK

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second; True ends the server."""
        if counter == 0:
            asyncio.get_running_loop().create_task(self._watch())
        return await super().on_tick(counter)

    async def _watch(self) -> None:
        announced = False
        ends = None
        while not self.should_exit:
            await asyncio.sleep(POLL_S)
            status = self._house.status
            if not announced and status == "ok":
                announced = True
                names = ", ".join(self._house.schedulers)
                self._said(f"serving {names} at http://{self.config.host}:{self._port()}/v1")
            if status == "worker_down":
                troubles = {s.backend.trouble for s in self._house.schedulers.values()} - {""}
                self._said(f"a worker stays down: {'; '.join(troubles) or 'see its lines above'}")
                self.status, self.should_exit = FAILED, True
            if self._house.draining:
                ends = ends or time.monotonic() + self._house.config.server.drain_s
                busy = any(s.running or len(s.waiting) for s in self._house.schedulers.values())
                if not busy or time.monotonic() > ends:
                    self._cut()
                    self.should_exit = True

    def _cut(self) -> None:
        """Tell whoever is still being answered that it is over."""
        refusal = Refusal(503, "shutting_down", "the server has been stopped.", headers={"Retry-After": "10"})
        for scheduler in self._house.schedulers.values():
            for ticket in [*scheduler.running, *scheduler.waiting]:
                ticket.hear({"event": "failed", "id": ticket.job.id, "count": 0, "error": refusal.facts()})

    def _port(self) -> int:
        with contextlib.suppress(AttributeError, IndexError):
            return int(self.servers[0].sockets[0].getsockname()[1])
        return self.config.port


def to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

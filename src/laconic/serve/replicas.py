"""The server under Ray Serve: several replicas of the same application behind one address, which share a store.

Every replica has its own worker processes, queue, quotas and metrics. Contexts are found wherever they were made, because
replicas look into the shared folder; so it has to be one that all nodes see.
"""

from __future__ import annotations

import os
import platform
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from laconic.errors import SpreadError
from laconic.serve.config import Config
from laconic.serve.front.app import build
from laconic.serve.run import OK, offline

NAME = "laconic"
POLL_S = 0.2


def serve(config: Config, replicas: int, address: str | None, said: Callable[[str], None]) -> int:
    """Serve until a signal comes, and return the exit status.

    Args:
        replicas: how many. `address`: of a running cluster, "auto" or ``ray://HOST:PORT``; None starts Ray on this machine.
        said: receives lines for the operator.

    Raises:
        SpreadError: Ray is not installed, or the cluster is not there.
    """
    offline(config)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with Replicas(config, replicas, address) as running:
        running.wait()
        names = ", ".join(model.name for model in config.models)
        said(f"serving {names} at http://{config.server.host}:{config.server.port}/v1 ({replicas} replicas)")
        ended.wait()
    return OK


class Replicas:
    """The application under Ray Serve while a ``with`` block is open.

    Args:
        see `serve`.
    """

    def __init__(self, config: Config, replicas: int, address: str | None = None):
        try:
            import ray
            from ray import serve
        except ImportError:
            raise SpreadError(
                "ray is not installed; pip install 'laconic-transformers[ray]', or leave --replicas out."
            ) from None
        self._ray: Any = ray
        self._serve: Any = serve
        self.config = replace(config, store=replace(config.store, shared=True))
        self.replicas, self.address = replicas, address

    def __enter__(self) -> Replicas:
        local: dict[str, Any] = {"address": "local", "include_dashboard": False, "num_cpus": self.replicas + 1}
        where = local if self.address is None else {"address": self.address}
        try:
            self._ray.init(log_to_driver=False, logging_level="error", **where)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise SpreadError(f"there is no Ray cluster at {self.address}: {error}") from error
        server = self.config.server
        self._serve.start(http_options={"host": server.host, "port": server.port}, logging_config={"log_level": "WARNING"})
        deployment = self._serve.deployment(self._serve.ingress()(Replica)).options(
            num_replicas=self.replicas,
            max_ongoing_requests=sum(model.max_batch + model.max_queue for model in self.config.models),
            graceful_shutdown_timeout_s=server.drain_s,
            health_check_timeout_s=600,
        )
        self._serve.run(deployment.bind(self.config), name=NAME, route_prefix="/")
        return self

    def wait(self) -> None:
        """Until every replica has loaded its models."""
        handle = self._serve.get_app_handle(NAME)
        ready: set[str] = set()
        while len(ready) < self.replicas:
            ready |= {name for name, status in [handle.state.remote().result()] if status == "ok"}
            time.sleep(POLL_S)

    def __exit__(self, *error: object) -> None:
        self._serve.shutdown()
        self._ray.shutdown()


class Replica:
    """One replica; Ray Serve asks it for its application."""

    def __init__(self, config: Config):
        self.config = config

    def __serve_build_asgi_app__(self) -> Any:
        app, self.house = build(self.config)
        return app

    async def state(self) -> tuple[str, str]:
        """A name of this replica, and whether it takes requests."""
        return f"{id(self.house)}@{os.getpid()}@{platform.node()}", self.house.status

    def check_health(self) -> None:
        """Called by Ray Serve; a replica that raises is replaced."""
        if self.house.status == "worker_down":
            raise RuntimeError("a worker stays down.")

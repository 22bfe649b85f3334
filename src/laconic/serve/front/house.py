"""What all routes share, and how they find it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from laconic.serve.config import Config, Model
from laconic.serve.front.bodies import parsed
from laconic.serve.front.contexts import Contexts
from laconic.serve.front.metrics import Metrics
from laconic.serve.front.scheduler import Scheduler
from laconic.serve.keys import Key, KeyRing
from laconic.serve.refusal import Refusal


@dataclass
class House:
    """What the routes share.

    Attributes:
        schedulers: one for every model, by name. `draining`: the server is being stopped.
    """

    config: Config
    keys: KeyRing | None
    schedulers: dict[str, Scheduler]
    metrics: Metrics
    contexts: Contexts
    started: int = field(default_factory=lambda: int(time.time()))
    draining: bool = False

    @property
    def status(self) -> str:
        """ "ok", or why no request is taken."""
        states = {scheduler.backend.status for scheduler in self.schedulers.values()}
        if self.draining:
            return "draining"
        return "ok" if states == {"ready"} else "worker_down" if "worker_down" in states else "loading"

    def check_open(self) -> None:
        """Refuse new work while the server is being stopped."""
        if self.draining:
            raise Refusal(503, "shutting_down", "the server is being stopped.", headers={"Retry-After": "10"})

    def models_of(self, key: Key) -> list[Model]:
        """The models that a key may use."""
        allowed = self.config.limits_of(key.name).models
        return [model for model in self.config.models if not allowed or model.name in allowed]


def house_of(request: Request) -> House:
    house: House = request.app.state.house
    return house


def key_of(request: Request) -> Key:
    key: Key = request.state.key
    return key


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object in a request's body.

    Raises:
        Refusal: it is none, or is said to be something else.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "unsupported_media_type", "the body must be application/json.")
    return parsed(await request.body())

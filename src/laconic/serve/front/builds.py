"""The making of a context, as the queue sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class Build:
    """A context to be made.

    Attributes:
        name: its id. `message`: for the worker. `hear`: receives ``built`` or ``failed``. `begin`: called when it begins.
        urgent: a request waits for it.
    """

    name: str
    message: dict[str, Any]
    hear: Callable[[dict[str, Any]], None]
    begin: Callable[[], None]
    urgent: bool = False

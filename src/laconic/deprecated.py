"""Names that moved: they work for one release, with a warning that says where they are now."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any


def warn(old: str, new: str) -> None:
    """Say once per place of use that `old` is now called `new`."""
    warnings.warn(f"{old} is deprecated and will be removed in laconic 0.3; use {new}.", DeprecationWarning, stacklevel=3)


def moved(old: str, new: str) -> Callable[[str], Any]:
    """A module's `__getattr__`: whatever is asked of module `old` is taken from module `new`."""

    def attribute(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        warn(old, new)
        return getattr(import_module(new), name)

    return attribute

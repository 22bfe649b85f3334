"""What other packages offer under laconic's entry-point groups, loaded one by one: one that fails takes no other with it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from laconic.errors import EntryPointError


@dataclass(frozen=True)
class Plugins:
    """What one entry-point group holds.

    Attributes:
        loaded: the objects that the entry points name.
        failed: the error of each entry point that could not be loaded, by the name of the entry point.
    """

    loaded: tuple[Any, ...]
    failed: dict[str, EntryPointError]

    def check(self, name: str) -> None:
        """Raise the error of the entry point called `name`, if it is one of those that failed."""
        if name in self.failed:
            raise self.failed[name]


def any_plugins(group: str) -> bool:
    """Whether an installed package has entry points of `group`; none is loaded."""
    return bool(list(entry_points(group=group)))


def load_plugins(group: str) -> Plugins:
    """Load all entry points of `group`. One that fails is a warning now, so that everything else can be used, and an error
    where it is asked for by its name."""
    loaded: list[Any] = []
    failed: dict[str, EntryPointError] = {}
    for point in entry_points(group=group):
        try:
            loaded.append(point.load())
        except Exception as error:  # another package's code: whatever it raises is reported, with its name
            failed[point.name] = _failure(point, group, error)
            warnings.warn(f"{failed[point.name]} laconic continues without it.", stacklevel=2)
    return Plugins(tuple(loaded), failed)


def _failure(point: EntryPoint, group: str, cause: Exception) -> EntryPointError:
    package = f"package {point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
    reason = f"{type(cause).__name__}: {cause}".rstrip(".")
    error = EntryPointError(
        f"entry point {point.name!r} ({point.value}) in group {group!r} of {package} cannot be loaded: {reason}. "
        "Repair that package, or uninstall it."
    )
    error.__cause__ = cause
    return error

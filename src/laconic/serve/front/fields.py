"""The fields of a request: each is read once, by its kind; what nobody has read in the end is an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from laconic.errors import closest
from laconic.serve.refusal import Refusal, invalid


class Fields:
    """An object of a request.

    Args:
        within: its own name, put before those of its fields in messages.
    """

    def __init__(self, given: Mapping[str, Any], within: str = ""):
        self._given, self._within = given, within
        self._read: set[str] = set()

    def name(self, name: str) -> str:
        return f"{self._within}.{name}" if self._within else name

    def raw(self, name: str) -> Any:
        """Whatever was given; None where nothing was."""
        self._read.add(name)
        return self._given.get(name)

    def text(self, name: str, most: int = 2**24) -> str | None:
        value = self.raw(name)
        if value is not None and (not isinstance(value, str) or len(value) > most):
            raise invalid(self.name(name), f"{self.name(name)} must be a text of at most {most:,} characters.")
        return value

    def required(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise Refusal(400, "missing_required_parameter", f"{self.name(name)} is required.", self.name(name))
        return value

    def number(self, name: str, low: float, high: float, default: float) -> float:
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise invalid(self.name(name), f"{self.name(name)} must be a number between {low:g} and {high:g}.")
        return float(value)

    def whole(self, name: str, low: int, high: int) -> int | None:
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise invalid(self.name(name), f"{self.name(name)} must be a whole number between {low:,} and {high:,}.")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise invalid(self.name(name), f"{self.name(name)} must be true or false.")
        return value

    def one_of(self, name: str, words: Iterable[str]) -> str | None:
        value, words = self.raw(name), tuple(words)
        if value is not None and value not in words:
            raise invalid(self.name(name), f"{self.name(name)} must be one of {', '.join(words)}.")
        found: str | None = value
        return found

    def inner(self, name: str) -> Fields | None:
        """An object within this one."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise invalid(self.name(name), f"{self.name(name)} must be an object.")
        return Fields(value, self.name(name))

    def labels(self, name: str) -> dict[str, str]:
        """Up to 16 pairs of short texts."""
        value = self.raw(name)
        if value is None:
            return {}
        fits = isinstance(value, dict) and len(value) <= 16
        if not fits or not all(isinstance(x, str) and len(k) <= 64 and len(x) <= 512 for k, x in value.items()):
            raise invalid(self.name(name), f"{self.name(name)} has up to 16 texts of 512 characters, names of 64.")
        return dict(value)

    def refuse(self, names: Mapping[str, Any]) -> None:
        """Fields that ask for what this server does not do, unless their value asks for nothing.

        Args:
            names: to the value that asks for nothing.
        """
        for name, nothing in names.items():
            value = self.raw(name)
            if value is not None and value != nothing and value not in ([], {}):
                raise Refusal(400, "unsupported_parameter", f"{self.name(name)} is not supported.", self.name(name))

    def ignore(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that were given."""
        found = [name for name in names if self.raw(name) is not None]
        return [self.name(name) for name in found]

    def rest(self, lenient: bool = False) -> list[str]:
        """What nobody has read: an error, or, if lenient, names to be told.

        Raises:
            Refusal: a field that does not exist.
        """
        unknown = [name for name in self._given if name not in self._read]
        if unknown and not lenient:
            name = unknown[0]
            hint = closest(name, self._read)
            shown = name if len(name) <= 64 and name.isprintable() else "(a name)"
            raise Refusal(400, "unknown_parameter", f"there is no field {self.name(shown)}: {hint}", self.name(shown))
        return [self.name(name) for name in unknown if len(name) <= 64]

"""Methods as plain values for JSON, and back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from laconic.errors import SavedContextError
from laconic.method import Method, find


def described(method: Method) -> dict[str, Any]:
    """A method with all its parameters; methods inside methods too. Protected spans are not part of it.

    Raises:
        SavedContextError: a parameter of a kind that JSON cannot give back.
    """
    names = [f.name for f in dataclasses.fields(method) if f.init and f.name != "protect"]
    return {"name": method.name, "arguments": {name: _plain(method, name, getattr(method, name)) for name in names}}


def rebuilt(facts: dict[str, Any]) -> Method:
    """The method that `described` recorded."""
    return find(facts["name"]).cls(**arguments(facts))


def arguments(facts: dict[str, Any]) -> dict[str, Any]:
    """Its parameters."""
    return {name: _value(x) for name, x in facts["arguments"].items()}


def _plain(method: Method, name: str, value: Any) -> Any:
    """`value` in kinds that JSON gives back as they were; of others it keeps, beside the value, which kind it was."""
    if isinstance(value, Method):
        return {"method": described(value)}
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, (list, tuple)):
        items = [_plain(method, name, x) for x in value]
        return {"tuple": items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise SavedContextError(f"{method.name}: {name}={value!r} cannot be written to a file; give numbers, text or lists.")


def _value(plain: Any) -> Any:
    if isinstance(plain, list):
        return [_value(x) for x in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, value),) = plain.items()
    if kind == "method":
        return rebuilt(value)
    return Path(value) if kind == "path" else tuple(map(_value, value))

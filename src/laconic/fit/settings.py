"""Settings of a fit from text, as ``--set name=value`` gives them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from laconic.errors import UnknownNameError, closest
from laconic.fit.contract import Fit

F = TypeVar("F", bound=Fit)
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}


def defaults(cls: type[Fit]) -> dict[str, Any]:
    """Names of the settings of a fit, with their defaults."""
    return {name: value for name, value in cls().settings().items() if name not in cls.unused}


def parse(cls: type[F], given: Mapping[str, str]) -> F:
    """A fit with the settings in `given`, each read as its field is typed: numbers, true or false, paths, text, or several
    separated by commas; ``none`` where a setting may be None.

    Raises:
        UnknownNameError: no such setting; all are listed. ValueError: a value of another type, or out of range.
    """
    hints = get_type_hints(cls)
    types = {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.name not in cls.unused}
    for name in given:
        if name not in types:
            known = ", ".join(f"{key}={shown(value)}" for key, value in defaults(cls).items())
            raise UnknownNameError(f"{cls.method} has no setting {name!r}: {closest(name, types)} Settings: {known}.")
    return cls(**{name: _value(f"{cls.method}: {name}={text!r}", types[name], text) for name, text in given.items()})


def shown(value: Any) -> str:
    """A value as `parse` reads it."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _value(where: str, kind: Any, text: str) -> Any:
    if get_origin(kind) in (Union, UnionType):
        if text.lower() == "none" and NoneType in get_args(kind):
            return None
        kind = next(k for k in get_args(kind) if k is not NoneType)
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        return tuple(_value(where, inner, piece.strip()) for piece in text.split(",") if piece.strip())
    try:
        return _WORDS[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise ValueError(f"{where} must be {_NAMES.get(kind, kind.__name__)}.") from None

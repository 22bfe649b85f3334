"""All errors that laconic raises on purpose derive from `LaconicError`; they state value, what is allowed, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class LaconicError(Exception):
    """Base of all laconic errors."""


class BudgetError(LaconicError, ValueError):
    """A budget is out of range, or too small for what must be kept."""


class ConflictError(LaconicError, ValueError):
    """Two methods claim the same seam."""


class UnknownNameError(LaconicError, ValueError):
    """A method, task or model name is not in its catalogue."""


class EntryPointError(LaconicError, ImportError):
    """A method or task of another package is installed, but importing it fails."""


class MissingPackageError(LaconicError, ImportError):
    """A package that this needs is not installed; the message names the extra that brings it."""


class UnsupportedModelError(LaconicError, TypeError):
    """The model's layers, attention or cache do not fit the seams."""


class SessionError(LaconicError, RuntimeError):
    """A call that makes no sense inside (or outside) the running session."""


class ProtectError(LaconicError, ValueError):
    """A protected span could not be found in the prompt."""


class ArtifactError(LaconicError, ValueError):
    """What a method learned or measured for a model is missing, damaged, or belongs to another method or model."""


class SavedContextError(LaconicError, ValueError):
    """A saved context is missing, broken, or belongs to another model."""


class StoreError(LaconicError, RuntimeError):
    """A store or a file of results cannot be read or written, or does not hold what was asked for."""


class SpreadError(LaconicError, RuntimeError):
    """Work cannot be spread over processes: Ray, its cluster or its workers are missing."""


class CodesError(LaconicError, ValueError):
    """Codes of an image, a clip or a sound are missing, damaged, or belong to another codec."""


class MediaError(LaconicError, ValueError):
    """An image or a video cannot be read, is broken, too large, or does not fit the prompt."""


MANY = 30
"""More names than this are not spelled out in a message."""


def closest(name: str, known: Iterable[str], listed_by: str = "") -> str:
    """A phrase that offers the closest known names. When none is close: all of them, or of many the command that lists them.

    Args:
        listed_by: the command, such as ``"laconic methods"``; without it all names are given, however many they are.
    """
    known = sorted(known)
    if not known:
        return "there are none; leave it out."
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {', '.join(near)}?"
    if listed_by and len(known) > MANY:
        return f"none of the {len(known)} known names is close; `{listed_by}` lists them."
    return f"known names: {', '.join(known)}."


def __getattr__(name: str) -> Any:
    if name != "RecipeError":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from laconic.deprecated import warn

    warn("RecipeError", "ArtifactError")
    return ArtifactError

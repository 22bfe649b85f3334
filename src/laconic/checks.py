"""Checks that methods make of their own parameters; every error says parameter, value and what is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from laconic.method import Method


def one_of(method: Method, parameter: str, *allowed: object) -> None:
    """Refuse a value that is not one of `allowed` (two or more)."""
    value = getattr(method, parameter)
    if value not in allowed:
        *others, last = map(repr, allowed)
        raise ValueError(f"{method.name}: {parameter}={value!r}: choose {', '.join(others)} or {last}.")


def whole(method: Method, parameter: str, least: int = 0) -> None:
    """Refuse what is not a whole number of at least `least`."""
    value = getattr(method, parameter)
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{method.name}: {parameter}={value!r} must be a whole number of at least {least}.")


def at_least(method: Method, parameter: str, least: float) -> None:
    """Refuse numbers below `least`."""
    value = getattr(method, parameter)
    if value < least:
        raise ValueError(f"{method.name}: {parameter}={value} must be at least {least}.")


def between(method: Method, parameter: str, low: float = 0, high: float = 1) -> None:
    """Refuse numbers outside `low` .. `high`, both included."""
    value = getattr(method, parameter)
    if not low <= value <= high:
        raise ValueError(f"{method.name}: {parameter}={value} must be between {low} and {high}.")

"""Methods as users name them: from texts with one budget for all, and as `compress()` takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from laconic.errors import BudgetError
from laconic.method import Method, create_method, find, has_budget


def create_methods(specs: Sequence[str], **budget: Any) -> list[Method]:
    """Methods from texts such as ``"NAME:key=value"``; see `laconic.create_method`.

    Args:
        budget: keep=, tokens= or bytes=, for methods whose own text names none. What packs the entries that another method
            chooses, such as a quantiser, does not get it: one budget is not spent twice.

    Raises:
        BudgetError: a budget for methods that all have one of their own; see `create_method` for the others.
    """
    classes = [find(spec.partition(":")[0].strip()).cls for spec in specs]
    given = budgeted(classes)
    takers = [spec for spec, cls in zip(specs, classes, strict=True) if cls in given]
    asked = {name: value for name, value in budget.items() if value is not None}
    if asked and takers and all(map(has_budget, takers)):
        (name, value), *_ = asked.items()
        raise BudgetError(f"{name}={value} is for no method: {takers[0]!r} has a budget of its own; give one of the two.")
    return [create_method(spec, **(budget if cls in given else {})) for spec, cls in zip(specs, classes, strict=True)]


def budgeted(classes: Sequence[type[Method]]) -> list[type[Method]]:
    """The methods of a session that a common budget is for. One that none of them takes goes to all, which refuse it."""
    takers = [cls for cls in classes if cls.takes_budget] or list(classes)
    return [cls for cls in takers if not cls.packs] or takers


def split_methods(texts: Iterable[str]) -> tuple[str, ...]:
    """Method specs from comma-separated lists; ``"random:seed=1,cap=7,truncate"`` is two of them."""
    found: list[str] = []
    for text in texts:
        first = True
        for piece in filter(None, (p.strip() for p in text.split(","))):
            key = piece.partition(":")[0]
            if not first and "=" in key:  # a further parameter of the method before it
                found[-1] += "," + piece
            else:
                found.append(piece)
            first = False
    return tuple(found)


def methods_of(given: Sequence[Any]) -> tuple[Method, ...]:
    """The methods that `compress()` was given: objects, or texts such as ``"NAME:key=value"``.

    Raises:
        TypeError: something else, with the line to write instead.
        UnknownNameError: a text that names no method.
    """
    return tuple(_method(one) for one in given)


def _method(one: Any) -> Method:
    if isinstance(one, Method):
        return one
    if isinstance(one, str):
        return create_method(one)
    takes = "compress() takes methods such as Random(keep=0.1) or 'random:keep=0.1'"
    if isinstance(one, type) and issubclass(one, Method):
        budget = f"keep={one.default_keep}" if one.default_keep else "..."
        raise TypeError(f"{takes}; got the class {one.__name__}: write {one.__name__}({budget}).")
    if isinstance(one, (list, tuple)):
        raise TypeError(f"{takes}, one by one; got a {type(one).__name__}: write compress(model, *methods).")
    raise TypeError(f"{takes}; got {one!r}.")

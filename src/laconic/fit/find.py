"""Which methods have a fit, and where it is: beside the method, or where its catalogue entry says."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

from laconic.errors import UnknownNameError
from laconic.fit.contract import Fit
from laconic.method import Entry, find, list_methods


def find_fit(name: str) -> type[Fit]:
    """The fit of method `name`; raises `UnknownNameError` for a method that is unknown or has none."""
    found = fit_of(find(name))
    if found is None:
        raise UnknownNameError(f"{name} needs no fit; `laconic fit` lists the methods that have one.")
    return found


def fits() -> dict[str, type[Fit]]:
    """The fits of all methods that have one, by name."""
    found = {entry.name: fit_of(entry) for entry in list_methods()}
    return {name: cls for name, cls in found.items() if cls is not None}


def fit_of(entry: Entry) -> type[Fit] | None:
    """The fit of a catalogue entry, imported now: what ``register(fit="package.module:Class")`` names, else the `Fit` in the
    module `fit` of the method's own package that has the method's name; None where there is neither.

    Raises:
        TypeError: the name is not that of a `Fit`, or the module has several for this method.
    """
    if entry.fit:
        place, _, attribute = entry.fit.partition(":")
        cls = getattr(import_module(place), attribute, None)
        if not (isinstance(cls, type) and issubclass(cls, Fit) and cls.method == entry.name):
            raise TypeError(f"{entry.name}: fit={entry.fit!r} names no Fit whose `method` is {entry.name!r}.")
        return cls
    package = sys.modules[entry.cls.__module__].__package__
    try:
        if not package or find_spec(f"{package}.fit") is None:
            return None
    except ModuleNotFoundError:  # a method whose module was loaded from a file path has no package to look in
        return None
    module = import_module(f"{package}.fit")
    own = [x for x in vars(module).values() if isinstance(x, type) and issubclass(x, Fit) and x.method == entry.name]
    if len(own) > 1:
        raise TypeError(f"{entry.name}: {module.__name__} has several fits: {', '.join(cls.__name__ for cls in own)}.")
    return own[0] if own else None

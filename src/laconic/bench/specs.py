"""Methods of a bench as text: which ones a list or a pattern names, and what a spec builds."""

from __future__ import annotations

from laconic.bench.comparison import Comparison
from laconic.errors import BudgetError, LaconicError, UnknownNameError, closest
from laconic.method import CATALOGUE, Method, create_method, find, has_budget, list_methods
from laconic.shelf import LISTED_BY

NONE = "none"
"""Stands for the uncompressed model."""


def build(spec: str, keep: float | None) -> Method | None:
    """The method of `spec` with its budget; None for the uncompressed model."""
    return None if spec == NONE else create_method(spec, keep=keep)


def check_spec(spec: str, keep: float) -> None:
    """Raise if `spec` cannot be built.

    Raises:
        UnknownNameError: no such method or parameter. BudgetError: a share or a parameter that the method refuses.
    """
    try:
        build(spec, None if budget_from_parameters(spec) else keep)
    except LaconicError:
        raise
    except (TypeError, ValueError) as error:  # what a method says about its own parameters
        raise BudgetError(f"{spec!r}: {error}") from error


def budget_from_parameters(spec: str) -> bool:
    """True when the spec names keep, tokens or bytes itself, or its method has one budget only (`Method.fixed_budget`)."""
    return has_budget(spec) or (spec != NONE and find(spec.partition(":")[0].strip()).cls.fixed_budget)


def resolve(spec: str, comparison: Comparison) -> list[str]:
    """A method spec as it is, or the specs that "all" or a pattern with ``*`` stands for."""
    if spec == "all":
        spec = "*"
    if "*" not in spec:
        return [spec]
    found = [entry.name for entry in list_methods(spec) if comparison.covers(entry)]
    if not found:
        raise UnknownNameError(
            f"no {comparison.kind} method matches {spec!r}: {closest(spec.strip('*'), CATALOGUE, LISTED_BY)}"
        )
    return [comparison.settings.get(name, name) for name in found]

"""How a context is to be compressed, as a request or a preset says it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from laconic.budget import BUDGETS, Budget
from laconic.errors import BudgetError, ConflictError, LaconicError, UnknownNameError, closest
from laconic.serve.refusal import Refusal, invalid

if TYPE_CHECKING:
    from laconic.method import Method

FILES = ("artifact", "recipe", "weights")
"""Parameters that name files: only the operator's presets may set them."""


@dataclass(frozen=True)
class Compression:
    """A method, or several, with one budget.

    Attributes:
        methods: names. `parameters`: of the first one.
        budget: keep=, tokens= or bytes=; empty: the method's own.
        protect: what no method may remove: ``"system"``, a text, or a token range.
        trusted: set by the operator, who may name files.
    """

    methods: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    budget: Mapping[str, float] = field(default_factory=dict)
    protect: Sequence[Any] = ()
    trusted: bool = False

    @classmethod
    def of(cls, given: Any, param: str, trusted: bool = False) -> Compression:
        """From JSON: ``{"method", "parameters", "keep" | "tokens" | "bytes", "protect"}``; the method's name is looked up by
        the worker.

        Raises:
            Refusal: another shape, or a budget out of range.
        """
        if not isinstance(given, dict):
            raise invalid(param, f'{param} must be an object such as {{"method": NAME, "keep": 0.25}}.')
        known = ("method", "parameters", *BUDGETS, "protect")
        for name in given:
            if name not in known:
                raise Refusal(400, "unknown_parameter", f"{param} has no field {name!r}: {closest(name, known)}", param)
        names = given.get("method")
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list) or not 0 < len(names) <= 4 or not all(isinstance(name, str) for name in names):
            raise invalid(f"{param}.method", f"{param}.method must be the name of a method; /v1/methods lists them.")
        parameters = given.get("parameters", {})
        if not isinstance(parameters, dict):
            raise invalid(f"{param}.parameters", f"{param}.parameters must be an object of names and values.")
        budget = {name: given[name] for name in BUDGETS if given.get(name) is not None}
        try:
            if budget:
                Budget(**budget)
        except BudgetError as error:
            raise Refusal(400, "budget_error", str(error), param) from None
        return cls(tuple(names), parameters, budget, protected(given.get("protect", ()), f"{param}.protect"), trusted)

    @classmethod
    def wired(cls, facts: Mapping[str, Any] | None) -> Compression | None:
        """What `facts` put on the wire."""
        return None if facts is None else cls(**{**facts, "methods": tuple(facts["methods"])})

    @property
    def how(self) -> tuple[Any, ...]:
        """Methods with parameters and budget, whoever has set them and whatever is protected."""
        return self.methods, dict(self.parameters), dict(self.budget)

    def facts(self) -> dict[str, Any]:
        """Plain values; equal ones can share a batch."""
        return asdict(self)

    def build(self) -> list[Method]:
        """The methods themselves. What packs entries that another method chooses gets no budget of its own.

        Raises:
            Refusal: no such method or parameter, a value of a kind that requests may not set, or a budget that does not fit.
        """
        from laconic.method import find
        from laconic.specs import budgeted

        try:
            entries = [find(name) for name in self.methods]
            given = budgeted([entry.cls for entry in entries])
            built = []
            for i, entry in enumerate(entries):
                parameters = dict(self.parameters) if i == 0 else {}
                self._check(entry.cls, parameters)
                budget: dict[str, Any] = dict(self.budget) if entry.cls in given else {}
                built.append(entry.cls(**parameters, **budget))
            return built
        except (UnknownNameError, ConflictError, BudgetError) as error:
            raise refused(error) from None
        except (TypeError, ValueError) as error:
            if isinstance(error, LaconicError):
                raise
            raise invalid("compress", f"{' + '.join(self.methods)}: {error}") from None

    def _check(self, cls: type[Method], parameters: Mapping[str, Any]) -> None:
        known = {f.name: str(f.type) for f in fields(cls) if f.name not in (*BUDGETS, "protect")}
        for name, value in parameters.items():
            if name not in known:
                raise invalid("compress.parameters", f"{cls.name} has no parameter {name!r}: {closest(name, known)}")
            if self.trusted:
                continue
            if name in FILES:
                raise invalid("compress.parameters", f"{name} names a file; only a preset of the server may set it.")
            plain = value is None or isinstance(value, (bool, int, float))
            if not plain and not (isinstance(value, str) and value in _words(known[name])):
                raise invalid("compress.parameters", f"{name} must be a number, a boolean, or a word of the method's own.")


def _words(annotation: str) -> list[str]:
    """The words of a `Literal` in an annotation."""
    return re.findall(r"[\"']([^\"']*)[\"']", annotation) if "Literal[" in annotation else []


def protected(given: Any, param: str) -> list[Any]:
    """``"system"``, a text, a range ``[a, b]``, or a list of these."""
    items = [given] if isinstance(given, str) else list(given) if isinstance(given, (list, tuple)) else None
    if items is not None and len(items) == 2 and all(_whole(x) for x in items):
        items = [items]
    if items is None or len(items) > 64:
        raise invalid(param, f'{param} must be "system", a text, a range [start, stop], or a list of up to 64 of these.')
    found: list[Any] = []
    for item in items:
        span = isinstance(item, list) and len(item) == 2 and all(_whole(x) for x in item) and 0 <= item[0] < item[1]
        if not span and not (isinstance(item, str) and item):
            raise invalid(param, f'{param} holds something that is neither "system", a text, nor a range [start, stop].')
        found.append(tuple(item) if span else item)
    return found


def _whole(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


CODES = {BudgetError: "budget_error", ConflictError: "method_conflict"}


def refused(error: LaconicError) -> Refusal:
    """An error of the library as the client is told: its message, with a code."""
    if isinstance(error, Refusal):
        return error
    return Refusal(400, CODES.get(type(error), "invalid_value"), str(error))

"""How one of the two answers is made, and the link that says it of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

NONE = "none"
"""Stands for the uncompressed model."""


@dataclass(frozen=True)
class Choice:
    """A method and its budget.

    Args:
        method: a name, or ``"none"``. `keep`: share that stays. `parameters`: ``key=value``, commas between.

    Raises:
        ValueError: parameters that are written otherwise, or a share out of range.
    """

    method: str = NONE
    keep: float = 0.25
    parameters: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep={self.keep} is the share kept: more than 0, at most 1.")
        self._parameters()

    def compress(self) -> dict[str, Any]:
        """The server's object for it."""
        found: dict[str, Any] = {"method": self.method, "keep": self.keep}
        parameters = self._parameters()
        return found | ({"parameters": parameters} if parameters else {})

    def _parameters(self) -> dict[str, Any]:
        found = {}
        for pair in filter(None, (pair.strip() for pair in self.parameters.split(","))):
            name, equals, value = pair.partition("=")
            if not equals or not name.strip().isidentifier():
                raise ValueError(f"parameters {self.parameters!r}: write key=value, with commas between them.")
            found[name.strip()] = _value(value.strip())
        return found

    def __str__(self) -> str:
        if self.method == NONE:
            return NONE
        return ",".join([f"{self.method}:keep={self.keep:g}", *filter(None, [self.parameters])])

    @classmethod
    def of(cls, text: str) -> Choice:
        """What `str` wrote.

        Raises:
            ValueError: it is written otherwise.
        """
        method, _, rest = text.partition(":")
        keep, others = 0.25, []
        for pair in filter(None, rest.split(",")):
            if pair.startswith("keep="):
                try:
                    keep = float(pair.removeprefix("keep="))
                except ValueError:
                    raise ValueError(f"{pair!r} is no share; write keep=0.25, say.") from None
            else:
                others.append(pair)
        return cls(method.strip() or NONE, keep, ",".join(others))


def link(model: str, question: str, choices: tuple[Choice, Choice]) -> str:
    """The query of a page that opens with these settings. Neither a key nor a document is in it."""
    return "?" + urlencode({"model": model, "question": question, "a": str(choices[0]), "b": str(choices[1])})


def settings(query: Mapping[str, str]) -> tuple[str, str, Choice, Choice]:
    """Model (empty: the server's first), question and choices of a link; ways that it does not name are uncompressed."""
    a, b = Choice.of(query.get("a", NONE)), Choice.of(query.get("b", NONE))
    return query.get("model", ""), query.get("question", ""), a, b


def _value(text: str) -> Any:
    """A number or a truth value where it looks like one, else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text

"""Training of the learned parts that some methods need. `laconic train NAME` finds its trainer here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from laconic.errors import UnknownNameError, closest

Run = Callable[[PreTrainedModel, Any, Any, Path, bool, Callable[[str], None]], Path]
"""(model, tokenizer, settings, folder, resume, log) -> the file of the weights."""


@dataclass(frozen=True)
class Trainer:
    """One line of the registry.

    Attributes:
        settings: a dataclass whose fields are what can be set.
        run: trains; see `Run`.
    """

    name: str
    summary: str
    settings: type[Any]
    run: Run

    def configure(self, given: dict[str, str]) -> Any:
        """Settings from text such as ``{"memory": "64"}``; the type is that of the field's default.

        Raises:
            UnknownNameError: no such setting. ValueError: the text does not fit.
        """
        fields = {f.name: f for f in dataclasses.fields(self.settings)}
        values = {}
        for name, text in given.items():
            if name not in fields:
                raise UnknownNameError(f"{self.name} training has no setting {name!r}: {closest(name, fields)}")
            kind: Any = type(fields[name].default)
            try:
                values[name] = kind(text)
            except ValueError:
                raise ValueError(f"{self.name} training: {name}={text!r} must be of type {kind.__name__}.") from None
        return self.settings(**values)


_TRAINERS: dict[str, Trainer] = {}
_MODULES = (
    "laconic.methods.cache.lococo.fit",
    "laconic.methods.tokens.dyvte.fit",
    "laconic.methods.tokens.explainability.fit",
)


def register(name: str, summary: str, settings: type[Any]) -> Callable[[Run], Run]:
    """Decorator that enters a training function under the name of its method."""

    def enter(run: Run) -> Run:
        _TRAINERS[name] = Trainer(name, summary, settings, run)
        return run

    return enter


def trainers() -> dict[str, Trainer]:
    """All trainers by name."""
    for module in _MODULES:
        import_module(module)
    return dict(_TRAINERS)


def find(name: str) -> Trainer:
    """The trainer called `name`; raises `UnknownNameError` with the closest names."""
    known = trainers()
    if name not in known:
        raise UnknownNameError(f"nothing to train for {name!r}: {closest(name, known)}")
    return known[name]

"""The registry of calibrations: a dataclass of options whose `run` measures one model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, ClassVar, TypeVar

from transformers import PreTrainedModel

from laconic.errors import RecipeError, UnknownNameError, closest
from laconic.method import find
from laconic.recipe import Recipe
from laconic.tasks.text.retrieval import EVALUATION_SEED

_MODULES = (
    "laconic.methods.cache.compresskv.fit",
    "laconic.methods.cache.fastkv.fit",
    "laconic.methods.cache.razorattention.fit",
    "laconic.methods.tokens.fitprune.fit",
    "laconic.methods.tokens.vtw.fit",
)
CALIBRATIONS: dict[str, type[Calibration]] = {}
C = TypeVar("C", bound="type[Calibration]")
Say = Callable[[str], None]


@dataclass(kw_only=True)
class Calibration:
    """Options and procedure of one method's calibration.

    Args:
        seed: of what is drawn; below 1,000,000, because later seeds are for evaluation.
    """

    seed: int = 0

    name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():
            numbers = value if isinstance(value, (list, tuple)) else (value,)
            if any(isinstance(x, (int, float)) and x < (0 if key == "seed" else 1) for x in numbers):
                raise ValueError(f"{self.name}: {key}={value} must be {'0' if key == 'seed' else '1'} or more.")
        if self.seed >= EVALUATION_SEED:
            raise ValueError(f"{self.name}: seed={self.seed} is reserved for evaluation; use 0 to {EVALUATION_SEED - 1}.")

    def run(self, model: PreTrainedModel, tokenizer: Any, say: Say) -> dict[str, Any]:
        """Measure `model`; what the recipe is to hold. `say` is told how it goes, line by line."""
        raise NotImplementedError(f"{type(self).__name__} must define run().")


def calibration(name: str) -> Callable[[C], C]:
    """Class decorator: this is how the method `name` is calibrated."""

    def enter(cls: C) -> C:
        cls.name = find(name).name
        CALIBRATIONS[name] = cls
        return cls

    return enter


def calibrate(name: str, model: PreTrainedModel, tokenizer: Any, say: Say = lambda line: None, **options: Any) -> Recipe:
    """The recipe of method `name` for `model`.

    Args:
        options: fields of the calibration, such as ``lengths=(512, 1024)``; the rest keeps its default.

    Raises:
        UnknownNameError: the method has no calibration, or the calibration no such option.
        RecipeError: the model did not do what the calibration observes.
    """
    cls = find_calibration(name)
    known = [field.name for field in dataclasses.fields(cls)]
    for key in options:
        if key not in known:
            raise UnknownNameError(f"calibrating {name} has no option {key!r}: {closest(key, known)}")
    made = cls(**options)
    data = made.run(model, tokenizer, say)
    if not data:
        raise RecipeError(f"calibrating {name} gave nothing.")
    return Recipe.of(name, model, data, {"by": f"laconic calibrate {name}", **asdict(made)})


def find_calibration(name: str) -> type[Calibration]:
    """The calibration of method `name`; raises `UnknownNameError` with those there are."""
    for module in _MODULES:
        import_module(module)
    if name not in CALIBRATIONS:
        raise UnknownNameError(f"{name!r} has no calibration: {closest(name, CALIBRATIONS)}")
    return CALIBRATIONS[name]

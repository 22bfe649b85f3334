"""Recipes: what a method learned about one model offline, as a small JSON file that names the model it belongs to."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from laconic.errors import RecipeError
from laconic.version import versions

SHIPPED = Path(__file__).parent / "recipes"
_SAMPLE = 1024
_NUMBERS = re.compile(r"\[[-+\d.e,\s]+\]")


def fingerprint(model: nn.Module) -> str:
    """A hash of the weights: names, shapes, and up to 1,024 evenly spaced numbers of every tensor, rounded to bf16.

    The same weights loaded in another floating-point type or on another device have the same fingerprint; it reads a few
    pages of each tensor, so a model of any size takes a moment.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        flat = weight.detach().flatten()
        some = flat[:: max(1, flat.numel() // _SAMPLE)][:_SAMPLE].to("cpu", torch.bfloat16)
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(some.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:32]


def model_name(model: Any) -> str:
    """Where the weights of a transformers model came from, for people: its id, or the name of its folder or class."""
    name = getattr(model.config, "_name_or_path", "") or type(model).__name__
    return Path(name).name if Path(name).is_absolute() else str(name)


@dataclass(frozen=True)
class Recipe:
    """What `laconic calibrate METHOD` writes.

    Attributes:
        method: name in the catalogue.
        model: where the weights came from, for people.
        fingerprint: of the weights, see `fingerprint`; None for constants published for a model by its name.
        data: what the method reads.
        made: how it was made (settings, seeds, source).
        versions: of laconic, torch and transformers.
    """

    method: str
    model: str
    fingerprint: str | None
    data: dict[str, Any]
    made: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, method: str, model: Any, data: dict[str, Any], made: dict[str, Any]) -> Recipe:
        """A recipe for `model`, a transformers model, with today's versions."""
        return cls(method, model_name(model), fingerprint(model), data, made, versions())

    def save(self, path: str | Path) -> None:
        """Write the recipe as JSON, every list of numbers on a line of its own."""
        text = json.dumps(asdict(self), indent=1)
        text = _NUMBERS.sub(lambda row: "[" + " ".join(row[0][1:-1].split()) + "]", text)
        Path(path).write_text(text + "\n", encoding="utf-8")


def load(path: str | Path) -> Recipe:
    """The recipe in a JSON file; raises `RecipeError` when it is none."""
    try:
        return Recipe(**json.loads(Path(path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise RecipeError(f"recipe {str(path)!r} does not exist. Shipped ones: {', '.join(shipped())}.") from None
    except (OSError, ValueError, TypeError) as error:
        raise RecipeError(f"{str(path)!r} is no recipe that `laconic calibrate` wrote: {error}") from error


def shipped(method: str = "*") -> list[str]:
    """Names of the recipes that come with laconic, such as ``"compresskv-testbed-lm"``."""
    return sorted(path.stem for path in SHIPPED.glob(f"{method}-*.json"))


def find(method: str, model: nn.Module, given: str | None) -> Recipe:
    """The recipe of `method` for `model`: the `given` file or shipped name, or the shipped one made for these very weights.

    Raises:
        RecipeError: there is none, or it belongs to another method or model.
    """
    if given is not None:
        recipe = load(SHIPPED / f"{given}.json" if given in shipped() else given)
        if recipe.method != method:
            raise RecipeError(f"recipe {given!r} is for {recipe.method}, not for {method}.")
        if recipe.fingerprint not in (None, fingerprint(model)):
            raise RecipeError(
                f"recipe {given!r} was made for other weights ({recipe.model}); make one with "
                f"`laconic calibrate {method} --model MODEL --out FILE`."
            )
        return recipe
    own = fingerprint(model)
    for name in shipped(method):
        recipe = load(SHIPPED / f"{name}.json")
        if recipe.fingerprint == own:
            return recipe
    raise RecipeError(
        f"{method} needs a recipe for this model and none is shipped for its weights. Make one with "
        f"`laconic calibrate {method} --model MODEL --out FILE` and pass recipe=FILE"
        + (f" (shipped: {', '.join(shipped(method))})." if shipped(method) else ".")
    )

"""Weights that a method learned for one model: a safetensors file that says what it belongs to, from `laconic train`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from laconic.errors import RecipeError
from laconic.recipe import SHIPPED, fingerprint


class Learned(Protocol):
    """What every such file holds beside its numbers.

    Attributes:
        model, fingerprint: what it was trained for; the fingerprint is None for any model.
        made: how, for people.
    """

    model: str
    fingerprint: str | None
    made: dict[str, Any]


L = TypeVar("L", bound=Learned)


def save(path: str | Path, method: str, learned: Learned, module: nn.Module, dtype: torch.dtype, **about: Any) -> None:
    """Write the numbers of `module`, floating-point ones as `dtype`, and what they belong to; `about` must be JSON."""
    text = {"method": method, "model": learned.model, "fingerprint": learned.fingerprint, **about, "made": learned.made}
    tensors = {name: x.detach().cpu().contiguous() for name, x in module.state_dict().items()}
    tensors = {name: x.to(dtype) if x.is_floating_point() else x for name, x in tensors.items()}
    save_file(tensors, path, {"laconic": json.dumps(text)})


def load(path: str | Path, method: str, build: Callable[[Mapping[str, Any], dict[str, Tensor]], L]) -> L:
    """What `build` makes of a file's facts and numbers (floating-point ones as fp32).

    Raises:
        RecipeError: no such file, or not one of this method.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["laconic"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
        if about["method"] != method:
            raise ValueError(f"made for {about['method']}")
        return build(about, {name: x.float() if x.is_floating_point() else x for name, x in tensors.items()})
    except FileNotFoundError:
        names = ", ".join(shipped(method)) or "none"
        raise RecipeError(f"weights {str(path)!r} do not exist. Shipped ones: {names}.") from None
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise RecipeError(f"{str(path)!r} holds no weights that `laconic train {method}` wrote: {error}") from error


def shipped(method: str) -> list[str]:
    """Names of a method's files that come with laconic, such as ``"lococo-testbed-lm"``."""
    return sorted(path.stem for path in SHIPPED.glob(f"{method}-*.safetensors"))


def find(model: nn.Module, method: str, given: str | None, load_one: Callable[[str | Path], L], instead: str = "") -> L:
    """The weights for `model`: the `given` file or shipped name, or the shipped ones trained for these very weights.

    Args:
        instead: what else a user may do, for the message.

    Raises:
        RecipeError: there are none, or they belong to another model.
    """
    own = fingerprint(model)
    make = f"train some with `laconic train {method} --model MODEL --out DIR` and pass weights=FILE"
    if given is not None:
        found = load_one(SHIPPED / f"{given}.safetensors" if given in shipped(method) else given)
        if found.fingerprint not in (None, own):
            raise RecipeError(f"weights {given!r} were trained for another model ({found.model}); {make}.")
        return found
    for name in shipped(method):
        found = load_one(SHIPPED / f"{name}.safetensors")
        if found.fingerprint == own:
            return found
    raise RecipeError(f"{method} needs trained weights and none are shipped for this model; {make}{instead}.")

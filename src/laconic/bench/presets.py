"""Grids with a name: read from ``presets/NAME.toml``, whose keys are a grid's fields and a description."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from laconic.bench.grid import EVERYTHING, Grid
from laconic.errors import UnknownNameError, closest


@dataclass(frozen=True)
class Preset:
    """A grid, and what it is for."""

    name: str
    description: str
    grid: Grid


@cache
def presets() -> dict[str, Preset]:
    """All presets by name, those of text first."""
    places = [place for place in files("laconic.bench").joinpath("presets").iterdir() if place.name.endswith(".toml")]
    found = [_read(place.name.removesuffix(".toml"), tomllib.loads(place.read_text(encoding="utf-8"))) for place in places]
    return {one.name: one for one in sorted(found, key=lambda one: (one.grid.modality != "text", one.name))}


def _read(name: str, data: dict[str, Any]) -> Preset:
    description = data.pop("description")
    if data.get("samples") == "all":
        data["samples"] = EVERYTHING
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    return Preset(name, description, Grid(**fields))


def preset(name: str) -> Grid:
    """The grid called `name`; raises `UnknownNameError` with the closest names."""
    if name not in presets():
        raise UnknownNameError(f"unknown preset {name!r}: {closest(name, presets())}")
    return presets()[name].grid

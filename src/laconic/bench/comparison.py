"""How methods are compared over the tasks of one modality: read from ``comparisons/MODALITY.toml``.

Which methods "all" stands for, default budgets, what the others are compared with, and what counts as the cost differ
between text and images; nothing else in the bench knows the difference. A new modality needs a file here and a way of
asking.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from laconic.method import Entry


@dataclass(frozen=True)
class Words:
    """What a comparison is called in tables and charts.

    Attributes:
        title: of a section; ``mode``, ``length`` and ``meaning`` are put in.
        score: the name of a score. `cost`, `short_cost`: of the cost.
        spent: what the points of a chart are plotted at.
    """

    title: str
    score: str
    cost: str
    short_cost: str
    spent: str


@dataclass(frozen=True)
class Columns:
    """The columns of a table.

    Attributes:
        first: before the tasks; "vs" stands for one column per reference. `last`: after the tasks.
        spare: columns that a narrow terminal drops, in this order; "tasks" stands for the tasks, the last one first.
        flops_digits: decimals of the share of FLOPs.
        foot: what the columns mean.
    """

    first: tuple[str, ...]
    last: tuple[str, ...]
    spare: tuple[str, ...]
    flops_digits: int
    foot: str


@dataclass(frozen=True)
class Comparison:
    """How methods are compared over the tasks of one modality.

    Attributes:
        kind: what its methods are called in messages. `model`: what is compared on when no model is named.
        sites: "all" and patterns stand for the catalogue's methods of these sites.
        keeps, lengths, modes: of a grid that names none; ``lengths = (0,)``: no length is asked for.
        preset: what runs when nothing else is named.
        references: methods that the others are compared with, sample by sample. `first`: those that stand first in a table.
        cost: figure of a line that methods are compared at: "kv_share" or "flops_share".
        at_equal_cost: a reference is taken at the cost of the line, between its two nearest budgets; else at its own budget
            with the closest cost.
        settings: method -> the spec to use for it where "all" or a pattern names it.
        meanings: mode -> what it means, for all modes of this modality.
        names: mode, as rows have it -> as users write and read it, where that differs.
    """

    modality: str
    kind: str
    model: str
    sites: tuple[str, ...]
    keeps: tuple[float, ...]
    lengths: tuple[int, ...]
    modes: tuple[str, ...]
    preset: str
    references: tuple[str, ...]
    first: tuple[str, ...]
    cost: str
    at_equal_cost: bool
    settings: dict[str, str]
    meanings: dict[str, str]
    words: Words
    table: Columns
    names: dict[str, str] = field(default_factory=dict)

    def covers(self, entry: Entry) -> bool:
        """True for methods that "all" and patterns stand for."""
        if self.modality == "video":  # a method for images takes the frames of a video
            return entry.site in self.sites and any(kind in entry.modality for kind in ("image", "video"))
        return entry.site in self.sites and (self.modality not in ("image", "audio") or self.modality in entry.modality)

    @property
    def sized(self) -> bool:
        """True if samples are made to have the length that is asked for."""
        return self.lengths != (0,)

    def shown(self, mode: str) -> str:
        """A mode of a row as users read it."""
        return self.names.get(mode, mode)

    def stored(self, mode: str) -> str:
        """A mode as users write it, or as rows have it -> as rows have it."""
        return next((name for name, shown in self.names.items() if shown == mode), mode)

    def title(self, mode: str, length: int) -> str:
        """One section of a table in words."""
        words = self.words.title if length or not self.sized else self.words.title.replace(", {length:,} tokens", "")
        return words.format(mode=self.shown(mode), length=length, meaning=self.meanings.get(mode, ""))


@cache
def comparisons() -> dict[str, Comparison]:
    """Modality -> comparison; text first."""
    places = [place for place in files("laconic.bench").joinpath("comparisons").iterdir() if place.name.endswith(".toml")]
    found = [_read(place.name.removesuffix(".toml"), tomllib.loads(place.read_text(encoding="utf-8"))) for place in places]
    return {one.modality: one for one in sorted(found, key=lambda one: (one.modality != "text", one.modality))}


def _read(modality: str, data: dict[str, Any]) -> Comparison:
    words, table = Words(**data.pop("words")), data.pop("table")
    table = Columns(**_tuples(table | {"foot": table["foot"].strip()}))
    return Comparison(modality, words=words, table=table, **_tuples(data))


def _tuples(data: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


def of_mode(mode: str) -> Comparison:
    """The comparison that rows of `mode` belong to; that of text for modes that no comparison names."""
    return next((one for one in comparisons().values() if mode in one.meanings), comparisons()["text"])

"""What the settings of a fit mean, as the docstrings of its classes say."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable

from laconic.fit.contract import Fit
from laconic.fit.settings import defaults


def meanings(cls: type[Fit]) -> dict[str, str]:
    """What each setting of a fit means: from its class, from one it inherits from, or from its network's sizes; "" where
    none of them says it."""
    told = dict.fromkeys(defaults(cls), "")
    for described in (*cls.__mro__, *cls.explained_in):
        for name, text in said(inspect.cleandoc(described.__dict__.get("__doc__") or ""), told).items():
            told[name] = told.get(name) or text
    return told


def said(doc: str, names: Iterable[str]) -> dict[str, str]:
    """What a docstring's section of arguments or attributes says, of `names` at least. Several may share an entry, as in
    "a, b: of both; c: of the third. `d`: and so on."."""
    section = re.search(r"(?ms)^(?:Args|Attributes):\n(.*?)(?=^\S|\Z)", doc)
    known = "|".join(names)  # what else stands before a colon, "empty: all", belongs to the entry that it is in
    heads = rf"(?:^|(?<=[.;] ))(?=[^:.;]*\b(?:{known})\b)(`?\w+`?(?:, `?\w+`?)*): "
    told: dict[str, str] = {}
    for entry in re.split(r"(?m)^    (?=\S)", section[1] if section else ""):
        pieces = re.split(heads, " ".join(entry.split()))[1:]
        for group, words in zip(pieces[::2], pieces[1::2], strict=True):
            told |= {name.strip(" `"): words.rstrip(".; ") for name in group.split(",")}
    return told

"""Parts of a text with a rule of their own, marked with a tag: ``<x, compress=False>...</x>``, ``<x, rate=0.2>...</x>``.

The syntax is that of arXiv 2310.05736's package, where the tag is its name. Parts do not nest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from laconic.errors import BudgetError


@dataclass(frozen=True)
class Part:
    """A stretch of a text without its tags.

    Attributes:
        keep: share of it that stays; 1 where it is not to be compressed; None where the method's budget holds.
    """

    text: str
    keep: float | None = None


def parts(text: str, tag: str) -> list[Part]:
    """The parts of a text, in order; blanks at the end of one are a part of their own. Text outside of tags,
    and inside of tags that set nothing, has no rule of its own.

    Raises:
        BudgetError: a tag that is not closed or not opened, one inside another, or an attribute that is not understood.
    """
    mark = re.compile(rf"<(/?){re.escape(tag)}((?:\s*,\s*[^<>,]*)*)\s*>")
    found: list[Part] = []
    at, opened, keep = 0, False, None
    for match in mark.finditer(text):
        closing = bool(match[1])
        if closing != opened:
            wrong = "closes nothing" if closing else "is inside another one"
            raise BudgetError(f"tag {match[0]!r} at character {match.start()} {wrong}; tags come in pairs, side by side.")
        found.append(Part(text[at : match.start()], keep))
        at, opened, keep = match.end(), not opened, None if closing else _keep(match[2], match[0])
    if opened:
        raise BudgetError(f"the last tag {tag!r} is never closed; write </{tag}> where its part ends.")
    return [piece for part in [*found, Part(text[at:])] for piece in _apart(part)]


def _apart(part: Part) -> list[Part]:
    """A part, and the blanks at its end by themselves, so that they stay whatever becomes of the last word."""
    body = part.text.rstrip()
    return [piece for piece in (Part(body, part.keep), Part(part.text[len(body) :])) if piece.text]


def _keep(attributes: str, tag: str) -> float | None:
    keep: float | None = None
    for attribute in filter(None, (a.strip() for a in attributes.split(","))):
        name, _, value = (x.strip() for x in attribute.partition("="))
        if name == "compress" and value.lower() in ("true", "false"):
            keep = 1.0 if value.lower() == "false" else keep
        elif name == "rate":
            keep = keep or _rate(value, tag)
        else:
            raise BudgetError(f"tag {tag!r}: {attribute!r} is not understood; write compress=False, or rate=0.3.")
    return keep


def _rate(value: str, tag: str) -> float:
    try:
        rate = float(value)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 1:
        raise BudgetError(f"tag {tag!r}: rate={value} is the share of the part that stays, 0 < rate <= 1.")
    return rate

"""Several methods from text, with one budget for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from laconic.method import Method, create_method, find


def create_methods(specs: Sequence[str], **budget: Any) -> list[Method]:
    """Methods from texts such as ``"NAME:key=value"``; see `laconic.create_method`.

    Args:
        budget: keep=, tokens= or bytes=, for methods whose own text names none. What packs the entries that another method
            chooses, such as a quantiser, does not get it: one budget is not spent twice.
    """
    packs = {spec: find(spec.partition(":")[0].strip()).cls.packs for spec in specs}
    return [create_method(spec, **({} if packs[spec] and not all(packs.values()) else budget)) for spec in specs]

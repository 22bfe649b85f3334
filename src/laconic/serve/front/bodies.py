"""JSON bodies, read strictly: valid, not too deep, and text that can be encoded."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from laconic.serve.refusal import Refusal, invalid

MAX_DEPTH = 64


def parsed(body: bytes) -> dict[str, Any]:
    """The object in a request's body.

    Raises:
        Refusal: it is not JSON, no object, nested too deeply, or holds half a character (a lone surrogate).
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except RecursionError:
        raise Refusal(400, "invalid_json", f"the body is nested more than {MAX_DEPTH} levels deep.") from None
    except ValueError:
        raise Refusal(400, "invalid_json", "the body is not valid JSON in UTF-8.") from None
    if not isinstance(value, dict):
        raise Refusal(400, "invalid_json", "the body must be a JSON object.")
    _check(value)
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _check(value: Any) -> None:
    """Walk through all values, level by level."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += [*one.keys(), *one.values()]
            elif isinstance(one, list):
                inner += one
            elif isinstance(one, str):
                try:
                    one.encode("utf-8")
                except UnicodeEncodeError:
                    raise Refusal(400, "invalid_value", "the body holds half a character (a lone surrogate).") from None
            elif isinstance(one, float) and one in (float("inf"), float("-inf")):
                raise invalid("", "the body holds a number beyond all bounds.")
        if not inner:
            return
        level = inner
    raise Refusal(400, "invalid_json", f"the body is nested more than {MAX_DEPTH} levels deep.")

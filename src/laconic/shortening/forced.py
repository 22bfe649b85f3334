"""Pieces that stay in any case: protected stretches, strings, digits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from laconic.errors import ProtectError
from laconic.method import Protect
from laconic.shortening.pieces import Pieces, Span


def forced(pieces: Pieces, spans: Iterable[Span], strings: Sequence[str], digits: bool) -> frozenset[int]:
    """Numbers of the pieces that stay.

    Args:
        spans: characters that stay. `strings`: every piece with a character of one of them stays. `digits`: with a digit.
    """
    text = pieces.text
    stay: set[int] = set()
    for start, stop in [*spans, *(span for string in strings for span in occurrences(text, string))]:
        stay.update(pieces.touching(start, stop))
    if digits:
        stay.update(i for i, piece in enumerate(pieces) if any(c.isdigit() for c in piece))
    return frozenset(stay)


def occurrences(text: str, string: str) -> list[Span]:
    """Where `string` is in `text`, from left to right without overlap."""
    found, at = [], text.find(string)
    while at >= 0:
        found.append((at, at + len(string)))
        at = text.find(string, at + len(string))
    return found


def protected_spans(text: str, protect: Protect) -> list[Span]:
    """The characters of `text` that `protect` names.

    Raises:
        ProtectError: a string that is not in the text, or what only a prompt has: token ranges, the system turn.
    """
    specs = [protect] if isinstance(protect, str) else list(protect)
    found: list[Span] = []
    for spec in specs:
        if not isinstance(spec, str) or spec == "system":
            raise ProtectError(f"protect={spec!r} is about the tokens of a whole prompt; a text has strings to protect.")
        here = occurrences(text, spec) if spec else []
        if not here:
            raise ProtectError(f"protect={spec!r}: this string is not in the text.")
        found += here
    return found

"""Tokens as readable pieces of text; a character whose bytes are spread over several tokens is one piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PARTIAL = "\ufffd"
LONGEST = 16  # most tokens of one piece: text that really contains U+FFFD must not become a single piece


@dataclass(frozen=True)
class TextPiece:
    """Tokens `start` to `stop` (exclusive) and their text; joined, the texts are the whole text."""

    start: int
    stop: int
    text: str


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[TextPiece]:
    """Cut a token sequence into the smallest pieces that are whole characters.

    Each piece is decoded together with the one before it, because some tokenizers drop a blank at the beginning.
    """
    found: list[TextPiece] = []
    before = start = 0
    for i in range(len(ids)):
        head = _decode(tokenizer, ids[before:start])
        text = _decode(tokenizer, ids[before : i + 1])
        if text.endswith(PARTIAL) and i + 1 < len(ids) and i + 1 - start < LONGEST:
            continue
        found.append(TextPiece(start, i + 1, text[len(head) :]))
        before, start = start, i + 1
    return found


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)) if ids else ""

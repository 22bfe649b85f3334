"""A text cut into pieces that can be kept or dropped one by one: joined, the pieces are the text."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from laconic.errors import UnsupportedModelError

Span = tuple[int, int]
SENTENCE = re.compile(r".+?(?:[.!?\u3002\uff01\uff1f]+[\"')\]\u201d\u2019]*(?=\s)|\n+|\Z)\s*", re.DOTALL)
"""A sentence with the blanks after it; the end of a line ends one, too."""


@dataclass(frozen=True)
class Pieces:
    """The pieces of one text.

    Attributes:
        text: the whole.
        stops: where each piece ends, in characters; it begins where the one before it ends.
        sizes: tokens of each piece; 1 where words are counted.
        ids: token ids of each piece, where a tokenizer has made the pieces.
    """

    text: str
    stops: tuple[int, ...]
    sizes: tuple[int, ...]
    ids: tuple[tuple[int, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.stops)

    def __iter__(self) -> Iterator[str]:
        start = 0
        for stop in self.stops:
            yield self.text[start:stop]
            start = stop

    def within(self, start: int, stop: int) -> range:
        """Pieces that end within the characters `start` .. `stop`: ranges that meet share no piece and leave none out."""
        return range(bisect_right(self.stops, start), bisect_right(self.stops, stop))

    def touching(self, start: int, stop: int) -> range:
        """Pieces with any of the characters `start` .. `stop`."""
        return range(bisect_right(self.stops, start), min(bisect_right(self.stops, stop - 1) + 1, len(self)))

    def size(self, numbers: Iterable[int]) -> int:
        """Tokens of the pieces with these numbers."""
        return sum(self.sizes[i] for i in numbers)


def words(text: str, tokenizer: Any | None = None) -> Pieces:
    """Words, each with the blanks before it.

    Args:
        tokenizer: counts the tokens of each word; None: a word counts as one.
    """
    stops = [found.end() for found in re.finditer(r"\s*\S+", text)]
    stops = [*stops[:-1], len(text)] if stops else [len(text)] if text else []
    if tokenizer is None:
        return Pieces(text, tuple(stops), (1,) * len(stops))
    sizes = [0] * len(stops)
    for owner in owners(stops, (stop for _, stop in _encoded(tokenizer, text)[1])):
        sizes[owner] += 1
    return Pieces(text, tuple(stops), tuple(sizes))


def tokens(text: str, tokenizer: Any) -> Pieces:
    """Tokens, each with what the tokenizer leaves out before it. Tokens that share a character are one piece."""
    ids, offsets = _encoded(tokenizer, text)
    stops: list[int] = []
    groups: list[list[int]] = []
    for token, (_, stop) in zip(ids, offsets, strict=True):
        if stops and stop <= stops[-1]:
            groups[-1].append(token)
        else:
            stops.append(stop)
            groups.append([token])
    if stops:
        stops[-1] = len(text)
    return Pieces(text, tuple(stops), tuple(map(len, groups)), tuple(map(tuple, groups)))


def owners(ends: Sequence[int], stops: Iterable[int]) -> list[int]:
    """Of pieces that end at `ends`, the one with the last character of each stretch of the text that ends at one of
    `stops`."""
    return [bisect_right(ends, max(stop - 1, 0)) for stop in stops]


def count(text: str, tokenizer: Any | None) -> int:
    """Tokens of a text, without any special ones; its words where there is no tokenizer."""
    return len(text.split()) if tokenizer is None else len(tokenizer.encode(text, add_special_tokens=False))


def sentences(text: str, start: int = 0, stop: int | None = None) -> list[Span]:
    """Sentences of a stretch of `text`, as character spans that meet."""
    return [found.span() for found in SENTENCE.finditer(text, start, len(text) if stop is None else stop)]


def chunks(pieces: Pieces, size: int, start: int = 0, stop: int | None = None) -> list[range]:
    """Whole sentences in succession, together of at most `size` tokens; a longer sentence is a chunk of its own.

    Args:
        start, stop: the characters that are divided.
    """
    found: list[range] = []
    for span in sentences(pieces.text, start, stop):
        part = pieces.within(*span)
        joined = range(found[-1].start, part.stop) if found else part
        if found and pieces.size(joined) <= size:
            found[-1] = joined
        elif part:
            found.append(part)
    return found


def _encoded(tokenizer: Any, text: str) -> tuple[list[int], list[Span]]:
    """Token ids and the characters of each.

    Raises:
        UnsupportedModelError: the tokenizer does not say where its tokens are.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UnsupportedModelError(
            f"{type(tokenizer).__name__} does not say where in the text its tokens are; use this model's fast tokenizer."
        )
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return list(found["input_ids"]), list(found["offset_mapping"])

"""The word error rate of transcripts: edits between the words said and those written down, over the words said."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_MARKS = re.compile(r"[^\w\s']")
_QUOTES = str.maketrans({"\u2019": "'", "\u2018": "'"})


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; an apostrophe within a word stays, a hyphen parts two."""
    plain = _MARKS.sub(" ", text.translate(_QUOTES).lower()).replace("_", " ")
    return [word for word in (one.strip("'") for one in plain.split()) if word]


def edits(reference: Sequence[str], output: Sequence[str]) -> int:
    """The fewest words that have to be put in, left out or exchanged to turn one into the other (Levenshtein)."""
    above = list(range(len(output) + 1))
    for i, wanted in enumerate(reference, 1):
        row = [i]
        for j, said in enumerate(output, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (wanted != said)))
        above = row
    return above[-1]


def word_error_rate(pairs: Iterable[tuple[str, str]]) -> float:
    """Edits over words of all references together, for pairs of (output, reference): 0 is perfect, over 1 possible.

    Raises:
        ValueError: no reference has a word.
    """
    wrong = said = 0
    for output, reference in pairs:
        wanted = words(reference)
        wrong, said = wrong + edits(wanted, words(output)), said + len(wanted)
    if not said:
        raise ValueError("word_error_rate: the references have no words, so there is nothing to divide by.")
    return wrong / said

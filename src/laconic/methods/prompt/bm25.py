"""`bm25`: keep the passages that share most words with the question. The honest rival of every method that knows it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from laconic import checks
from laconic.method import register
from laconic.shortening.choose import fill
from laconic.shortening.contract import PromptMethod
from laconic.shortening.source import Source


@register(
    "bm25",
    site="prompt",
    mechanism="retrieval",
    source="baseline",
    query_aware=True,
    inferred="a passage is whole sentences of one document, of at most `chunk` tokens; of the last one only what fits",
)
@dataclass(kw_only=True)
class BM25(PromptMethod):
    """Keep the passages of a text that BM25 finds nearest to the question, in the order of the text.

    Args:
        chunk: most tokens of a passage of whole sentences.
        k1, b: how soon a repeated word stops counting, and how far long passages are held back.
        force, digits, tags: what stays in any case, see `laconic.PromptMethod`.
    """

    chunk: int = 64
    k1: float = 1.2
    b: float = 0.75

    needs_question: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole(self, "chunk", 1)
        checks.at_least(self, "k1", 0)
        checks.between(self, "b")

    def select(self, source: Source) -> Sequence[int]:
        pieces, passages = source.pieces, source.passages(self.chunk)
        split = list(pieces)
        bags = [terms("".join(split[i] for i in passage)) for passage in passages]
        scores = bm25(bags, terms(source.question), self.k1, self.b)
        best = sorted(range(len(passages)), key=lambda i: (-scores[i], i))
        return fill([passages[i] for i in best], pieces.sizes, source.budget, source.forced)


def terms(text: str) -> list[str]:
    """Lower-case words and numbers."""
    return re.findall(r"\w+", text.lower())


def bm25(passages: Sequence[Sequence[str]], question: Sequence[str], k1: float = 1.2, b: float = 0.75) -> list[float]:
    """The score of each passage, both given as words: the sum over the question's words w of
    ``idf(w) f (k1 + 1) / (f + k1 (1 - b + b |p| / mean))``, f times in a passage of |p| words, with
    ``idf = ln(1 + (N - n + 0.5) / (n + 0.5))`` for a word in n of N passages."""
    counts = [Counter(words) for words in passages]
    mean = sum(map(len, passages)) / len(passages) or 1
    found = [0.0] * len(passages)
    for word in question:
        n = sum(word in count for count in counts)
        idf = math.log(1 + (len(passages) - n + 0.5) / (n + 0.5))
        for i, count in enumerate(counts):
            f = count[word]
            found[i] += idf * f * (k1 + 1) / (f + k1 * (1 - b + b * len(passages[i]) / mean)) if f else 0
    return found

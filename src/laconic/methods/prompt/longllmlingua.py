"""`longllmlingua`: keep the documents, and the tokens, that a question makes likelier (arXiv 2310.06839)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from laconic import checks
from laconic.method import register
from laconic.shortening.scorer import Prefix, Scorer
from laconic.shortening.scoring import ScoringMethod, ids_of, leading, mean
from laconic.shortening.source import Source
from laconic.shortening.windows import Quantile, filtered

RESTRICTION = " We can get the answer to this question in the given documents."
"""Follows the question when documents are ranked by it."""


@register(
    "longllmlingua",
    site="prompt",
    mechanism="deletion",
    source="arXiv 2310.06839",
    query_aware=True,
    inferred="a text that is given as a whole is divided into passages of `chunk` tokens; shares of documents are raised or "
    "lowered together until they come to the budget",
)
@dataclass(kw_only=True)
class LongLLMLingua(ScoringMethod):
    """Keep the documents after which a question is likeliest, and of them the tokens that it makes likelier.

    Args:
        window, quantile: as for `llmlingua`.
        extra: tokens beyond the budget that whole documents may take before tokens are dropped.
        delta: how much more of the most relevant document stays, and how much less of the least relevant one (0.3 or 0.4).
        order: of the documents that stay: as given, by relevance ("sort"), or the most relevant ones at both ends
            ("two_stage").
        chunk: tokens of a passage of whole sentences, where the text is one document.
        scorer: a small causal language model; it need not be the one that will read the text.
        force, digits, tags: what stays in any case, see `laconic.PromptMethod`.
    """

    window: int = 200
    extra: int = 100
    delta: float = 0.3
    order: Literal["original", "sort", "two_stage"] = "original"
    chunk: int = 128
    quantile: Quantile = "window"

    default_keep: ClassVar[float | None] = 0.5
    needs_question: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole(self, "window", 1)
        checks.whole(self, "extra")
        checks.whole(self, "chunk", 1)
        checks.between(self, "delta")
        checks.one_of(self, "order", "original", "sort", "two_stage")
        checks.one_of(self, "quantile", "window", "prefix")

    def select(self, source: Source) -> Sequence[int]:
        units = source.documents if len(source.documents) > 1 else source.passages(self.chunk)
        relevance = [-strangeness(source.scorer, ids_of(source, unit), source.question) for unit in units]
        ranked = leading(units, relevance, source.pieces.sizes, source.budget + self.extra)
        lengths = [source.pieces.size(units[i]) for i in ranked]
        share_of = dict(zip(ranked, shares(lengths, source.budget, self.delta), strict=True))
        dropped = [i for i in range(len(units)) if i not in share_of and source.forced.intersection(units[i])]
        numbers: list[int] = []
        own: list[float] = []
        for i in arranged(ranked, dropped, self.order):
            part = units[i] if i in share_of else sorted(source.forced.intersection(units[i]))
            numbers += part
            own += [share_of.get(i, 0.0)] * len(part)
        return filtered(source, numbers, own, Contrast(source.scorer, source.question), self.window, self.quantile)


class Contrast:
    """Scores a token by how much the question raises its likelihood (equation 3)."""

    def __init__(self, scorer: Scorer, question: str):
        opening = scorer.tokenizer.encode(f"{question}\n\n", add_special_tokens=False)
        self.plain, self.asked = Prefix(scorer), Prefix(scorer, opening)

    def score(self, window: Sequence[int]) -> list[float]:
        return [a - b for a, b in zip(self.plain.score(window), self.asked.score(window), strict=True)]

    def keep(self, tokens: Sequence[int]) -> None:
        self.plain.keep(tokens)
        self.asked.keep(tokens)


def strangeness(scorer: Scorer, document: list[int], question: str) -> float:
    """Mean negative log-likelihood of the question and restriction after the document (equation 2); low where it helps."""
    return mean(scorer.surprise(scorer.tokenizer.encode(question + RESTRICTION, add_special_tokens=False), document))


def deltas(count: int, delta: float) -> list[float]:
    """What is added to the share of each document, the most relevant first: from `delta` down to ``-delta``, 0 in sum."""
    return [delta * (1 - 2 * i / (count - 1)) for i in range(count)] if count > 1 else [0.0] * count


def shares(lengths: Sequence[int], budget: int, delta: float) -> list[float]:
    """The share of each document, the most relevant first, between 0 and 1: a common one plus its delta, where the common
    one is such that the budget is spent (found by bisection)."""
    added = deltas(len(lengths), delta)
    low, high = -delta, 1 + delta

    def at(base: float) -> list[float]:
        return [min(1.0, max(0.0, base + more)) for more in added]

    for _ in range(50):
        middle = (low + high) / 2
        spent = sum(length * share for length, share in zip(lengths, at(middle), strict=True))
        low, high = (middle, high) if spent < budget else (low, middle)
    return at(high)


def arranged(ranked: Sequence[int], others: Sequence[int], order: str) -> list[int]:
    """Documents in the order in which they are read: `ranked` by relevance, `others` only for what is forced in them."""
    if order == "original":
        return sorted([*ranked, *others])
    if order == "sort":
        return [*ranked, *others]
    return [*ranked[::2], *others, *ranked[1::2][::-1]]

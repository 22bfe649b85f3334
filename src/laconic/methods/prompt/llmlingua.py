"""`llmlingua`: drop the tokens that a small language model finds easiest to predict (arXiv 2310.05736)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from laconic import checks
from laconic.method import register
from laconic.shortening.pieces import sentences
from laconic.shortening.scorer import Prefix
from laconic.shortening.scoring import ScoringMethod, ids_of, leading, mean
from laconic.shortening.source import Source
from laconic.shortening.windows import Quantile, filtered


@register(
    "llmlingua",
    site="prompt",
    mechanism="deletion",
    source="arXiv 2310.05736",
    query_aware=False,
    inferred="each window meets its own budget exactly; the budget is a share of the context alone",
)
@dataclass(kw_only=True)
class LLMLingua(ScoringMethod):
    """Drop the tokens of a text that a small language model predicts best, after what was kept before them.

    Of several documents the least predictable ones stay first, together a little longer than the budget; then of
    sentences, if that is wanted; then tokens, window by window.

    Args:
        window: tokens that are scored at once (the paper has 100, the code 200).
        extra: tokens beyond the budget that whole documents may take before tokens are dropped.
        sentence_filter: drop sentences, too, before tokens, down to 1.4 times the budget.
        quantile: over which scores the threshold of a window is taken, see `laconic.shortening.windows`.
        scorer: a small causal language model; it need not be the one that will read the text.
        force, digits, tags: what stays in any case, see `laconic.PromptMethod`.
    """

    window: int = 200
    extra: int = 100
    sentence_filter: bool = False
    quantile: Quantile = "window"

    default_keep: ClassVar[float | None] = 0.5
    preferred: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole(self, "window", 1)
        checks.whole(self, "extra")
        checks.one_of(self, "quantile", "window", "prefix")

    def select(self, source: Source) -> Sequence[int]:
        stay: Sequence[int] = range(len(source.pieces))
        if len(source.documents) > 1:
            stay = _surprising(source, source.documents, source.budget + self.extra)
        if self.sentence_filter:
            stay = _surprising(source, _sentences(source, stay), 1.4 * source.budget)
        share = min(1.0, source.budget / source.pieces.size(stay))
        return filtered(source, stay, [share] * len(stay), Prefix(source.scorer), self.window, self.quantile)


def _surprising(source: Source, units: Sequence[range], limit: float) -> list[int]:
    """Pieces of the units that are predicted worst, until there are over `limit` tokens, and forced ones of the others."""
    scores = [mean(source.scorer.surprise(ids_of(source, unit))) for unit in units]
    taken = [units[i] for i in leading(units, scores, source.pieces.sizes, limit)]
    return sorted({*source.forced, *(number for unit in taken for number in unit)})


def _sentences(source: Source, stay: Sequence[int]) -> list[range]:
    """Sentences of the documents that stay."""
    among = set(stay)
    found = [source.pieces.within(*span) for span in sentences(source.pieces.text)]
    return [sentence for sentence in found if sentence and sentence.start in among]

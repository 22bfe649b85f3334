"""`selective_context`: drop the phrases that carry least information (arXiv 2310.06201)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from laconic import checks
from laconic.method import register
from laconic.shortening.choose import fill
from laconic.shortening.pieces import sentences
from laconic.shortening.scoring import ScoringMethod, ids_of, per_piece
from laconic.shortening.source import Source

FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a an the this that these those my your his her its our their some any no each every of in on at by for with from
        to into onto over under about between through during before after without and or but nor so yet if then than as
        because while although is are was were be been being am do does did has have had will would can could may might
        shall should must not which who whom whose what when where how why it he she they we you i there here also
        """,
    )
)
"""English words that open a phrase and name nothing."""


@register(
    "selective_context",
    site="prompt",
    mechanism="deletion",
    source="arXiv 2310.06201",
    query_aware=False,
    inferred="a phrase is a run of function words and the other words after it, within punctuation (the authors merge the "
    "noun chunks of a parser); the budget is in tokens, not a percentile of the units, and cuts the last one",
)
@dataclass(kw_only=True)
class SelectiveContext(ScoringMethod):
    """Drop the units of a text with the least self-information, each sentence scored by itself.

    Args:
        unit: "sentence", "phrase" or "token"; a unit's score is the mean of its tokens'.
        scorer: a small causal language model; it need not be the one that will read the text.
        force, digits, tags: what stays in any case, see `laconic.PromptMethod`.
    """

    unit: Literal["sentence", "phrase", "token"] = "phrase"

    default_keep: ClassVar[float | None] = 0.65

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, "unit", "sentence", "phrase", "token")

    def select(self, source: Source) -> Sequence[int]:
        pieces, scorer = source.pieces, source.scorer
        spans = [span for span in sentences(pieces.text) if pieces.within(*span)]
        alone = [pieces.within(*span) for span in spans]
        information = scorer.side_by_side([ids_of(source, s) for s in alone], scorer.tokenizer.eos_token_id)
        scores = [
            score for sentence, found in zip(alone, information, strict=True) for score in per_piece(source, sentence, found)
        ]
        if self.unit == "token":
            units = [range(i, i + 1) for i in range(len(pieces))]
        elif self.unit == "sentence":
            units = alone
        else:
            units = [unit for span in spans for phrase in phrases(pieces.text, *span) if (unit := pieces.within(*phrase))]
        means = [sum(scores[unit.start : unit.stop]) / len(unit) for unit in units]
        best = sorted(range(len(units)), key=lambda i: (-means[i], i))
        return fill([units[i] for i in best], pieces.sizes, source.budget, source.forced)


def phrases(text: str, start: int, stop: int) -> list[tuple[int, int]]:
    """The phrases of a sentence, as character spans that meet."""
    found: list[tuple[int, int]] = []
    opened = start
    named = False
    for word in re.finditer(r"\S+", text[start:stop]):
        function = word[0].lower().strip("\"'(),;:.") in FUNCTION_WORDS
        at = start + word.start()
        if function and named:
            found.append((opened, at))
            opened, named = at, False
        named = named or not function
        if word[0][-1] in ",;:.!?)" and named:
            found.append((opened, start + word.end()))
            opened, named = start + word.end(), False
    return [*found, (opened, stop)] if opened < stop else found

"""What a method sees of a text that it is to shorten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from laconic.shortening.pieces import Pieces, chunks


@dataclass(frozen=True)
class Source:
    """A text in pieces, and what has to be known to choose among them.

    Attributes:
        pieces: of the text, as the method's `split` made them.
        documents: the pieces of each document; one where the text was given as a whole.
        question: what will be asked; empty where it is not known.
        budget: tokens that may stay, in the unit of `pieces.sizes`.
        forced: pieces that stay in any case. They count against the budget.
        scorer: what `PromptMethod.opened` gave: the model that judges the text, if one does.
    """

    pieces: Pieces
    documents: tuple[range, ...]
    question: str
    budget: int
    forced: frozenset[int]
    scorer: Any = None

    @property
    def share(self) -> float:
        """The budget as a share of all tokens."""
        return self.budget / sum(self.pieces.sizes)

    def passages(self, size: int) -> list[range]:
        """Whole sentences in succession, of one document and at most `size` tokens; a longer sentence is one by itself."""
        stops = self.pieces.stops
        found: list[range] = []
        for part in self.documents:
            if part:
                found += chunks(self.pieces, size, stops[part.start - 1] if part.start else 0, stops[part.stop - 1])
        return found

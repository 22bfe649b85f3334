"""`random_text`: keep words drawn uniformly. What scores words must beat it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from laconic.method import register
from laconic.shortening.choose import fill
from laconic.shortening.contract import PromptMethod
from laconic.shortening.source import Source


@register("random_text", site="prompt", mechanism="deletion", source="baseline", query_aware=False)
@dataclass(kw_only=True)
class RandomText(PromptMethod):
    """Keep words of a text drawn uniformly, from a seeded generator.

    Args:
        seed: of the generator.
        force, digits, tags: what stays in any case, see `laconic.PromptMethod`.
    """

    seed: int = 0

    def select(self, source: Source) -> Sequence[int]:
        order = list(range(len(source.pieces)))
        random.Random(self.seed).shuffle(order)
        return fill([order], source.pieces.sizes, source.budget, source.forced)

"""`truncate_text`: cut a text, as one cuts what does not fit. The baseline of every method that shortens text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from laconic import checks
from laconic.method import register
from laconic.shortening.choose import fill
from laconic.shortening.contract import PromptMethod
from laconic.shortening.source import Source


@register("truncate_text", site="prompt", mechanism="deletion", source="baseline", query_aware=False)
@dataclass(kw_only=True)
class TruncateText(PromptMethod):
    """Cut a text after a whole word: drop its end, its beginning, or its middle.

    Unlike the cache's truncation, what stays has never seen what was cut.

    Args:
        side: the side that is cut: ``"right"`` keeps the beginning, ``"left"`` the end, ``"middle"`` both (LongBench's way).
        force, digits, tags: what stays in any case, see `laconic.PromptMethod`.
    """

    side: Literal["left", "right", "middle"] = "right"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, "side", "left", "right", "middle")

    def select(self, source: Source) -> Sequence[int]:
        last = len(source.pieces) - 1
        order = list(range(last + 1))
        if self.side == "left":
            order.reverse()
        elif self.side == "middle":
            order.sort(key=lambda i: (min(i, last - i), i))
        return fill([order], source.pieces.sizes, source.budget, source.forced)

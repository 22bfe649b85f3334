"""A-ToMe: neighbouring tokens of sound that are alike are merged, a few in every encoder layer (arXiv 2306.16009)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from laconic import checks
from laconic.errors import BudgetError
from laconic.method import register
from laconic.ops.adjacent import best_pairs, groups, left_to_right, neighbours
from laconic.ops.similarity import means
from laconic.speech.contract import AudioMethod, Clip, LayerView, Reduced, Shorter

STEP = 8
"""After the encoder, each round merges at most one of so many tokens: the most alike of all first."""


@register(
    "a_tome",
    site="encoder",
    modality="audio",
    mechanism="merging",
    principle="similarity",
    source="arXiv 2306.16009",
    query_aware=False,
    inferred="every layer's ratio from the budget; the fewest most similar candidates that give the number; at='output'",
)
@dataclass(kw_only=True)
class AToMe(AudioMethod):
    """Merge neighbouring tokens whose keys are alike (cosine, mean over heads), between attention and feed-forward network.

    Candidates are taken from left to right without overlap, means are weighted by size, and sizes are carried.

    Args:
        ratio: pairs merged in every layer, as a share of its tokens, at most 0.5; instead of a budget.
        threshold: merge all pairs that are more alike; instead of a budget. Above 1 nothing is.
        at: "layers" of the encoder; "output": the features after it, in rounds, for models that join tokens after their
            encoder (Qwen2-Audio), by the features' own cosines.
        silence, strip, proportional: see `AudioMethod`.

    Raises:
        BudgetError: several of keep=, tokens=, bytes=, ratio= and threshold=, or fewer tokens than the layers can leave.
    """

    ratio: float | None = None
    threshold: float | None = None
    at: Literal["layers", "output"] = "layers"

    default_keep: ClassVar[float | None] = 0.25

    def __post_init__(self) -> None:
        checks.one_of(self, "at", "layers", "output")
        own = [name for name in ("keep", "tokens", "bytes", "ratio", "threshold") if getattr(self, name) is not None]
        if len(own) > 1:
            raise BudgetError(f"a_tome: {' and '.join(own)} each say how much is merged; give one of them.")
        if self.ratio is not None and not 0 <= self.ratio <= 0.5:
            raise BudgetError(f"a_tome: ratio={self.ratio} must be between 0 and 0.5: pairs do not overlap.")
        super().__post_init__()
        if self.ratio is not None or self.threshold is not None:
            self.keep, self.budget_from_parameters = None, True

    @property
    def neutral(self) -> bool:
        if self.budget_from_parameters:
            return self.ratio == 0 or (self.threshold is not None and self.threshold > 1)
        return super().neutral

    @property
    def inside(self) -> bool:
        return self.at == "layers"

    def plan(self, tokens: int, count: int | None, depth: int) -> list[int | None]:
        """The same share of every layer's tokens, rounded so that the last meets the count."""
        if count is None:
            return [None] * depth
        if count < -(-tokens // 2**depth):
            raise BudgetError(
                f"a_tome: {depth} layers that at most halve {tokens} tokens leave at least {-(-tokens // 2**depth)}, not "
                f"{count}; ask for keep={-(-tokens // 2**depth) / tokens:.4f} or more."
            )
        left, plan = tokens, []
        for layer in range(depth):
            share = (count / left) ** (1 / (depth - layer))
            left = max(count, -(-left // 2), round(left * share))
            plan.append(left)
        return list(plan)

    def step(self, view: LayerView) -> Shorter:
        n = view.keys.shape[1]
        return Shorter(groups(self._pairs(view.keys.float().mean(0), None if view.count is None else n - view.count)))

    def _pairs(self, metric: Tensor, merges: int | None) -> Tensor:
        """The pairs of neighbours of metric [n, d] that are merged, bool [n - 1]."""
        similarity = neighbours(metric)
        if self.threshold is not None:
            return left_to_right(similarity > self.threshold)
        if merges is None:
            assert self.ratio is not None
            merges = int(self.ratio * len(metric))
        return best_pairs(similarity, merges)

    def reduce(self, clip: Clip) -> Reduced:
        x, to, size = clip.tokens.float(), torch.arange(len(clip), device=clip.tokens.device), None
        while True:
            left = None if clip.count is None else len(x) - clip.count
            merges = left if left is None else min(left, max(1, len(x) // STEP))
            pairs = self._pairs(x, merges)
            if len(x) < 2 or not bool(pairs.any()):
                break
            into = groups(pairs)
            x, size = means(x, into, int(into[-1]) + 1, size)
            to = into[to]
            if clip.count is None and self.ratio is not None:
                break
        first = torch.searchsorted(to, torch.arange(len(x), device=to.device))
        return Reduced(first, first[to], x.to(clip.tokens.dtype))

"""ToMe: similar tokens of the vision encoder are merged, a few in every layer (arXiv 2210.09461)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from laconic import checks
from laconic.errors import BudgetError
from laconic.method import register
from laconic.ops.bipartite import Merging, bipartite
from laconic.stream.clusters import Clusters
from laconic.stream.contract import POLICIES, Cut, Policy, Stream, TokenMethod
from laconic.stream.tower import Between, Choice, MergingTower, check

Schedule = Literal["constant", "decreasing"]


@register(
    "tome",
    site="encoder",
    modality="image",
    mechanism="merging",
    principle="similarity",
    source="arXiv 2210.09461",
    query_aware=False,
    inferred="r of every layer from the budget; tokens reach the decoder in raster order of their first patch",
)
@dataclass(kw_only=True)
class ToMe(TokenMethod):
    """Merge the most similar pairs of tokens in every encoder layer, between its attention and its MLP.

    The encoder gets cheaper, and the decoder reads one token per cluster of patches. Pairs are chosen by `ops.bipartite`,
    from the keys of the layer, mean over heads. CLS is never merged.

    Args:
        keep: share of each view's patches that is left when the features are taken; the layers' r follows from it.
        r: pairs merged in every layer instead (on average with "decreasing").
        schedule: "constant", or "decreasing" from 2 r to 0 linearly.
        proportional: a token that stands for s patches is attended like s of them (log s is added to its logits), which
            encoders trained without merging need.
        positions: "renumber", without gaps; "gather": that of the first patch of every cluster.

    Tokens are merged before anything is known about the prompt, so `tokens=` and `bytes=` cannot be given, and images that
    come within `session.hold()` are merged too, although all of their tokens stay.

    Raises:
        BudgetError: both r and a budget, or a budget other than a share.
        UnsupportedModelError: an encoder that packs images, or a model that merges or resamples patches after it.
    """

    r: int | None = None
    schedule: Schedule = "constant"
    proportional: bool = True
    positions: Policy = "renumber"

    def __post_init__(self) -> None:
        if self.tokens is not None or self.bytes is not None:
            raise BudgetError(
                "tome: tokens are merged in the encoder, before the prompt is known, so tokens= and bytes= cannot be "
                "met; give keep=, the share of every image, or r=."
            )
        checks.one_of(self, "schedule", "constant", "decreasing")
        if self.r is not None and (self.keep is not None or self.r < 0):
            raise BudgetError(f"tome: r={self.r} must not be negative, nor be given together with keep=.")
        checks.one_of(self, "positions", *POLICIES)
        super().__post_init__()
        if self.r is not None:
            self.keep, self.budget_from_parameters = None, True

    @property
    def neutral(self) -> bool:
        return self.r == 0 if self.budget_from_parameters else self.budget.neutral

    def attach(self, model: PreTrainedModel) -> None:
        if not self.neutral:
            check(model, self.name, self.proportional)

    def install(self, model: PreTrainedModel) -> list[RemovableHandle]:
        self._clusters = Clusters()
        if self.neutral:
            return []
        return MergingTower(model, self._choices, self.proportional, self._clusters.note).install()

    def _choices(self, patches: int, layers: int) -> list[Choice | None]:
        return [partial(pairs, r=r) if r else None for r in self.plan(patches, layers)]

    def plan(self, patches: int, layers: int) -> list[int]:
        """Pairs to merge in each of the first `layers` layers, in views of `patches` patches.

        Raises:
            BudgetError: so few tokens cannot be reached, because a layer at most halves them.
        """
        if self.r is not None:
            steps = [self.r] * layers
            if self.schedule == "decreasing":
                steps = [int(2 * self.r * (1 - i / max(1, layers - 1))) for i in range(layers)]
            return _possible(steps, patches)
        kept = max(1, int(self.allowance(patches, 0, 1) + 0.5))
        share = [1.0] * layers if self.schedule == "constant" else [float(layers - 1 - i) for i in range(layers)]
        return even(patches, kept, share if sum(share) else [1.0])

    def cut(self, stream: Stream) -> Cut:
        return self._clusters.cut(stream, self.name, self.positions)


def pairs(between: Between, r: int) -> Merging:
    """The `r` most similar pairs, by the mean of the keys over heads."""
    return bipartite(between.keys.float().mean(1), r, between.cls)


def even(total: int, kept: int, share: list[float]) -> list[int]:
    """Merges per layer that leave `kept` of `total` tokens: in proportion to `share`, but at most half of a layer's tokens;
    what a layer cannot merge is left to later layers, or else to earlier ones.

    Raises:
        BudgetError: see `ToMe.plan`.
    """
    spent, left = 0.0, [total]
    for part in share:
        spent += part
        wanted = total - round((total - kept) * spent / sum(share))
        left.append(max(wanted, -(-left[-1] // 2)))
    left[-1] = kept
    for i in range(len(share) - 1, -1, -1):
        left[i] = min(left[i], 2 * left[i + 1])
    if left[0] < total:
        least = -(-total // 2 ** len(share))
        raise BudgetError(
            f"tome: {len(share)} layers that at most halve {total} tokens leave at least {least}, not {kept}; ask for "
            f"keep={least / total:.4f} or more."
        )
    return [before - after for before, after in itertools.pairwise(left)]


def _possible(steps: list[int], tokens: int) -> list[int]:
    """`steps` cut down to half of the tokens that are left at each."""
    result = []
    for step in steps:
        result.append(min(step, tokens // 2))
        tokens -= result[-1]
    return result

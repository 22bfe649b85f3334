"""VisionZip: the patches that CLS attends to, and a few means of all the others (arXiv 2412.04467)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic import checks
from laconic.errors import BudgetError
from laconic.families.vision import VisualSpan, vision_family_of
from laconic.method import register
from laconic.ops.similarity import means, nearest
from laconic.stream.assemble import choose
from laconic.stream.contract import POLICIES, Cut, Policy, Stream, TokenMethod
from laconic.stream.views import Reduced, by_view, counts, vectors

DOMINANT, CONTEXTUAL = 162, 30


@register(
    "visionzip",
    site="encoder",
    modality="image, video",
    mechanism="pruning, merging",
    principle="attention, similarity",
    source="arXiv 2412.04467",
    query_aware=False,
    inferred="the split 162:30 at every budget; families that merge patches mix features after the projector",
)
@dataclass(kw_only=True)
class VisionZip(TokenMethod):
    """Keep the patches that CLS attends to most, and merge the rest into evenly spread contextual tokens.

    Every view is cut separately: dominant tokens first, in raster order, then the contextual ones. With an encoder without
    CLS, the mean attention that a patch receives takes its place. The question plays no part.

    Args:
        keep: share of the visual tokens; each view splits its tokens in the paper's proportion 162:30 (108:20, 54:10 ...).
        dominant, contextual: numbers of tokens per view instead; give both.
        layer: encoder layer whose attention and keys are read; None: the one that gives the features.
        positions: "renumber", as published: without gaps; "gather": every token keeps its position, so the decoder knows
            where in the image it was.

    Raises:
        BudgetError: only one of `dominant` and `contextual`, or these and a budget.
    """

    dominant: int | None = None
    contextual: int | None = None
    layer: int | None = None
    positions: Policy = "renumber"

    def __post_init__(self) -> None:
        if (self.dominant is None) != (self.contextual is None):
            raise BudgetError(f"visionzip: dominant={self.dominant}, contextual={self.contextual}: give both, or neither.")
        fixed = self.dominant is not None and self.contextual is not None
        if fixed and (self.keep, self.tokens, self.bytes) != (None, None, None):
            raise BudgetError("visionzip: give keep=, tokens= or bytes=, or dominant= with contextual=, not both.")
        if self.dominant is not None and self.contextual is not None and (self.dominant < 1 or self.contextual < 0):
            raise BudgetError(
                f"visionzip: dominant={self.dominant} must be at least 1, contextual={self.contextual} at least 0."
            )
        checks.one_of(self, "positions", *POLICIES)
        super().__post_init__()
        if fixed:
            self.keep, self.budget_from_parameters = None, True
        self._layer = self.layer

    def attach(self, model: PreTrainedModel) -> None:
        if self.layer is None:
            self._layer = vision_family_of(model).feature_layer(model)

    def encoder_layers(self, depth: int) -> Collection[int]:
        return () if self.neutral or self._layer is None else (self._layer,)

    def cut(self, stream: Stream) -> Cut:
        budgets = {} if self.budget_from_parameters else counts(stream, self)

        def reduce(number: int, span: VisualSpan, must: Tensor) -> Reduced:
            return self._view(stream, span, budgets.get(number), must)

        return by_view(stream, reduce, self.positions)

    def _view(self, stream: Stream, span: VisualSpan, count: int | None, must: Tensor) -> Reduced:
        assert self._layer is not None
        visual, n = stream.visual, len(span.tokens)
        dominant, contextual = self.split(n, count)
        attention = visual.cls_attention if visual.has_cls else visual.received_attention
        scores = visual.pool(span, attention(span, self._layer).sum(0))
        keys = visual.pool(span, visual.keys(span, self._layer).float().mean(0))
        first = choose(scores, dominant, must)
        x, read = vectors(visual, span)
        centers, mixed, to = contextual_tokens(first, keys, x, contextual)
        old = visual.features(span)[first]
        values = torch.cat([old, read(mixed.to(x.dtype)).to(old.dtype)]) if contextual else old
        return Reduced(torch.cat([first, centers]), to, values, scores)

    def split(self, n: int, count: int | None = None) -> tuple[int, int]:
        """Dominant and contextual tokens of a view of `n` tokens that may keep `count`; None: as the parameters specify.

        Raises:
            BudgetError: the parameters ask for more tokens than there are.
        """
        if count is None:
            assert self.dominant is not None and self.contextual is not None
            if self.dominant + self.contextual > n:
                raise BudgetError(
                    f"visionzip: dominant={self.dominant} and contextual={self.contextual} are more than the {n} tokens of "
                    "a view; ask for fewer, or give keep=."
                )
            return self.dominant, self.contextual
        contextual = round(count * CONTEXTUAL / (DOMINANT + CONTEXTUAL))
        return count - contextual, contextual


def contextual_tokens(dominant: Tensor, keys: Tensor, x: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """All but the dominant tokens, as `count` tokens: a centre plus the mean of the tokens most similar to it.

    Args:
        dominant: token numbers, [d]. `keys`: [n, e]. `x`: [n, C].

    Returns:
        the centres' numbers [count], the tokens [count, C] in fp32, and where each of the n tokens went [n].
    """
    n, numbers = len(x), torch.arange(len(x), device=x.device)
    left = torch.ones(n, dtype=torch.bool, device=x.device)
    left[dominant] = False
    rest = numbers[left]
    if count == 0:
        return rest[:0], x[:0].float(), torch.where(left, -1, numbers)
    centers = rest[:: len(rest) // count][:count]
    left[centers] = False
    rest = numbers[left]
    at = nearest(keys[rest], keys[centers])
    mean, _ = means(x[rest], at, count)
    numbers[rest] = centers[at]
    return centers, x[centers].float() + mean, numbers

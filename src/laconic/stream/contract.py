"""The contract of methods that act on the stream: which tokens go on to a decoder layer, at which values and positions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from laconic.cache.observe import Observation
from laconic.errors import BudgetError
from laconic.families.vision import Visual
from laconic.method import Method

Policy = Literal["gather", "renumber"]
POLICIES: tuple[str, ...] = get_args(Policy)


@dataclass(frozen=True)
class Cut:
    """What becomes of a stream [B, n, D].

    Attributes:
        keep: rows of the stream that go on, in their new order, [B, m]; -1 at the left of a batch row that keeps fewer than
            its neighbours. Every row keeps its text.
        values: hidden states of the rows that go on, [B, m, D], where tokens were merged; None: as they are.
        positions: "gather": tokens keep their positions, and there are gaps; "renumber": positions are counted anew, without
            gaps (models with several positions per token, M-RoPE, gather all the same); or the positions [B, m].
        merged: the row of the stream into which each row went, [B, n]; its own number where it stays alone, -1 where it is
            dropped. For the trace only.
        scores: what the method ranked rows by, the higher the likelier to stay, [B, n]; nan where a row has no score. For
            the trace only.
    """

    keep: Tensor
    values: Tensor | None = None
    positions: Policy | Tensor = "gather"
    merged: Tensor | None = None
    scores: Tensor | None = None


@dataclass
class Stream:
    """The stream before a decoder layer, in a prefill pass that brings images.

    Attributes:
        layer: the layer that runs next, of `depth`; 0 is before the LLM.
        block: that layer's module.
        hidden: hidden states, [B, n, D]; before layer 0 the embeddings, visual features put in.
        place: number of every row among the tokens of this pass, [B, n]: what `Visual` calls a token.
        positions: rotary positions, [B, n], or [3 or 4, B, n] with M-RoPE.
        valid: False at padding, [B, n]; None when all rows are real.
        shown: rows that stand for image patches, [B, n]: visual tokens without line ends and other separators.
        protected: rows that no method may remove, [B, n]; None when nothing is protected.
        visual: the images of this pass.
        ids: token ids of this pass, [B, T].
        seen: what layer `layer` - 1 attended to, where the method observes it; else None.
        entry_bytes: bytes that one token of one sequence costs in the cache, over all layers.
        phases: (cos, sin) of the stream's positions, as layers get them, or None before layer 0.
        memo: the method's own notes within this pass.
    """

    layer: int
    depth: int
    block: nn.Module
    hidden: Tensor
    place: Tensor
    positions: Tensor
    valid: Tensor | None
    shown: Tensor
    protected: Tensor | None
    visual: Visual
    ids: Tensor
    seen: Observation | None
    entry_bytes: int
    phases: tuple[Tensor, Tensor] | None = None
    memo: dict[Any, Any] = field(default_factory=dict)

    def images(self, row: int) -> Tensor:
        """Rows of the stream that show patches, ascending, [v]."""
        return self.shown[row].nonzero()[:, 0]

    def texts(self, row: int) -> Tensor:
        """Rows of the stream that are neither visual (separators included) nor padding, ascending, [t]."""
        text = ~self.visual.mask[row, self.place[row]]
        return (text if self.valid is None else text & self.valid[row]).nonzero()[:, 0]

    def must(self, row: int) -> Tensor:
        """Which of `images` are protected, bool [v]."""
        at = self.images(row)
        return torch.zeros(len(at), dtype=torch.bool) if self.protected is None else self.protected[row, at]


@dataclass(kw_only=True)
class TokenMethod(Method):
    """Removes or merges visual tokens before decoder layers; text always goes on.

    `keep` is the mean share of visual tokens over all decoder layers, so equal budgets mean nearly equal FLOPs, wherever a
    method cuts. `tokens` is that mean as a number per sequence, `bytes` what keys and values of the whole sequence may take.

    A subclass gives `cut`, and says before which layers it is asked (`cuts`), which layers' attention it looks at
    (`observes`), and which encoder layers (`encoder_layers`). Nothing is asked of passes without images, of decoding, of
    held passes, or at the neutral budget.
    """

    claims: ClassVar[frozenset[str]] = frozenset({"stream"})
    uneven: ClassVar[bool] = False
    """Under a budget, samples of one batch keep different numbers, and all cost what the longest costs."""

    def cuts(self, depth: int) -> Sequence[int]:
        """Decoder layers, of `depth`, before which `cut` is asked."""
        return (0,)

    def observes(self, depth: int) -> Collection[int]:
        """Decoder layers whose attention `cut` looks at, before the layer that follows."""
        return ()

    def encoder_layers(self, depth: int) -> Collection[int]:
        """Layers of the vision encoder, of `depth`, whose queries and keys the method looks at."""
        return ()

    def install(self, model: PreTrainedModel) -> list[RemovableHandle]:
        """Hooks of the method's own, for those that work inside of the encoder; removed when the session closes."""
        return []

    def cut(self, stream: Stream) -> Cut | None:
        """What goes on to `stream.layer`; None: everything."""
        raise NotImplementedError(f"{type(self).__name__} must define cut().")

    def allowance(self, total: int, others: int, entry_bytes: int) -> float:
        """Visual tokens that a sequence may keep, as the mean over all layers.

        Args:
            total: its visual tokens. `others`: its other tokens. `entry_bytes`: bytes of one entry over all layers.

        Raises:
            BudgetError: not even one visual token fits.
        """
        budget = self.budget
        if budget.keep is not None:
            mean = budget.keep * total
        elif budget.tokens is not None:
            mean = min(float(total), float(budget.tokens))
        else:
            assert budget.bytes is not None
            mean = min(float(total), budget.bytes / entry_bytes - others)
        if total and mean < 0.5:
            raise BudgetError(
                f"{self.name}: the budget ({budget}) leaves {mean:.2f} of {total} visual tokens; at least one must stay."
            )
        return mean

    def mean_after(self, mean: float, total: int, layer: int, depth: int) -> float:
        """Visual tokens after one cut before `layer`, such that the mean over `depth` layers is `mean` of `total`.

        Raises:
            BudgetError: the layers before the cut alone cost more than the budget.
        """
        after = (mean * depth - layer * total) / (depth - layer)
        if after < 0.5:
            least = (layer * total + (depth - layer)) / (depth * total)
            raise BudgetError(
                f"{self.name}: all visual tokens run through the first {layer} of {depth} layers, so "
                f"keep={mean / total:.4f} cannot be reached; ask for keep={least:.4f} or more, or cut earlier."
            )
        return after

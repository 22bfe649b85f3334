"""The contract of methods that act on the stream: which tokens go on to a decoder layer, at which values and positions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from laconic.errors import BudgetError
from laconic.method import Method
from laconic.seams import Seam
from laconic.stream.seam import StreamSeam
from laconic.stream.stream import POLICIES, Cut, Policy, Stream

__all__ = ["POLICIES", "Cut", "Policy", "Stream", "TokenMethod"]


@dataclass(kw_only=True)
class TokenMethod(Method):
    """Removes or merges visual tokens before decoder layers; text always goes on.

    `keep` is the mean share of visual tokens over all decoder layers, so equal budgets mean nearly equal FLOPs, wherever a
    method cuts. `tokens` is that mean as a number per sequence, `bytes` what keys and values of the whole sequence may take.

    A subclass gives `cut`, and says before which layers it is called (`cuts`), which layers' attention it looks at
    (`observes`), and which encoder layers (`encoder_layers`). It is called in prefill passes that bring images only: not
    while decoding, not in held passes, and not at the neutral budget.
    """

    claims: ClassVar[frozenset[str]] = frozenset({"stream"})
    seams: ClassVar[tuple[type[Seam], ...]] = (StreamSeam,)
    in_visual_tokens: ClassVar[bool] = True
    rewrites_text: ClassVar[bool] = False
    """Whether tokens of the text, too, go on as something else than the model's own embeddings of their ids."""

    def cuts(self, depth: int) -> Sequence[int]:
        """Decoder layers, of `depth`, before which `cut` is called."""
        return (0,)

    def observes(self, depth: int) -> Collection[int]:
        """Decoder layers whose attention `cut` looks at, before the next layer."""
        return ()

    def encoder_layers(self, depth: int) -> Collection[int]:
        """Layers of the vision encoder, of `depth`, whose queries and keys the method looks at."""
        return ()

    def install(self, model: PreTrainedModel) -> list[RemovableHandle]:
        """Hooks of the method's own, for those that work inside the encoder; removed when the session closes. On a decoder
        layer they run before the stream seam's, which is registered later."""
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
        """Visual tokens after one cut before `layer`, such that the mean over all `depth` layers is `mean` of `total`.

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

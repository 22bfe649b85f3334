"""Optional hooks of cache methods: each is a protocol, and a method that defines its functions has it.

They stay out of `CacheMethod` because few methods need any of them. Shapes: B batch rows, H query heads, Hkv KV heads, n
entries, T tokens of the pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch

from laconic.cache.observe import Observation
from laconic.cache.parts.base import Entries
from laconic.ops.segments import Segments
from laconic.ops.select import Selection

if TYPE_CHECKING:
    from laconic.cache.hidden import Hidden


@runtime_checkable
class ChoosesAcrossHeads(Protocol):
    """Chooses by itself which entries stay, instead of the best of every head.

    A choice of different numbers per head needs ``ragged = True`` for the rest to be freed.
    """

    def choose(self, rank: torch.Tensor, obs: Observation) -> Selection:
        """From ranks [B, Hkv, n] (padding at -inf, protected entries at inf) to the entries that stay, such that
        ``obs.targets[b]`` stay in row b, on average over its heads."""
        ...


@runtime_checkable
class CutsLate(Protocol):
    """May choose among the entries of all layers and heads together. Each prefill pass stores all of its entries then, and
    the cut follows when the model has returned: one full pass, not one full layer, is held at a time."""

    @property
    def cuts_late(self) -> bool:
        """Whether this setting does."""
        ...


@runtime_checkable
class RefitsEntries(Protocol):
    """Changes the entries that stay after a late cut, once it is known which ones do."""

    def reference(self, obs: Observation) -> Any:
        """After a layer's attention: what `refit` will need of this pass, besides the entries; held until the cut."""
        ...

    def refit(
        self, entries: Entries, rank: torch.Tensor, kept: torch.Tensor, reference: Any
    ) -> tuple[Entries, torch.Tensor]:
        """The entries of one layer, changed, and which of them stay; as many in each head as in `kept` [B, Hkv, n].

        Args:
            rank: what was competed with, [B, Hkv, n]; padding at -inf, what must stay from the largest fp32 number on.
        """
        ...


@runtime_checkable
class KeepsQueries(Protocol):
    """Scores with queries of earlier passes."""

    def queries_kept(self) -> int:
        """How many of the latest queries every layer keeps, in ``obs.state["queries"]`` [B, H, <= this, D]; 0 keeps none."""
        ...


@runtime_checkable
class DescribesEntries(Protocol):
    """Notes something about tokens that are generated, from what a layer reads (`laconic.cache.hidden.HiddenSeam`). Of
    tokens that are prompt `CacheMethod.columns` says it."""

    def describe(self, layer: int, hidden: Hidden) -> dict[str, torch.Tensor]:
        """Columns of the T tokens that compressed layer `layer` reads, [B, Hkv, T] each, which are stored with the
        entries."""
        ...


@runtime_checkable
class SparsePrefill(Protocol):
    """Lets only some tokens of a prefill pass attend."""

    def narrow(self, obs: Observation) -> torch.Tensor | None:
        """Before a layer's attention: positions [B, m] of this pass that attend and are attended in this layer, sorted; -1
        first in rows that need fewer. The others get zeros from the attention and go on to the next layer. None means
        all."""
        ...


@runtime_checkable
class SelectsStream(Protocol):
    """Shortens the stream: after some layer only selected tokens go on to the layers that follow."""

    def shortens_from(self, layers: int) -> int | None:
        """First decoder layer (of `layers`) that runs on a shortened stream; None when the setting shortens nothing."""
        ...

    def stream(self, obs: Observation) -> torch.Tensor | None:
        """After a layer's attention: positions [B, m] (sorted) of this pass that go on to the next layers; None means
        all."""
        ...


@runtime_checkable
class PseudoTokens(Protocol):
    """Runs pseudo tokens after the prompt, for the sake of their queries and keys (`Observation.pseudo`).

    Nothing of them is stored, and the model's output does not show them. They run after each prefill pass, except held ones
    and at the neutral budget.
    """

    def pseudo(self, prompt: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        """Tokens to run after each row of `prompt`: ids [B, T] -> [B, P], or embeddings [B, T, hidden] -> [B, P, hidden].
        `valid` [B, T] is False at (left) padding."""
        ...

    def pseudo_offset(self) -> int:
        """Distance of the first pseudo token's position from the one that follows the prompt."""
        ...


@runtime_checkable
class SeesSegments(Protocol):
    """Its pseudo tokens see parts of the prompt only."""

    def segments(self, prompt: torch.Tensor, valid: torch.Tensor | None) -> Segments | None:
        """Of the pseudo tokens that `PseudoTokens.pseudo` makes of the same; None: they see the whole prompt, causally."""
        ...


@runtime_checkable
class ReadsWithTokenizer(Protocol):
    """Runs words of its own, which only the session's tokenizer can turn into tokens."""

    def read_with(self, tokenizer: Any) -> None:
        """Called when a session is made that was given a tokenizer, before any pass."""
        ...

"""The contract of methods that decide which cache entries stay: give scores; the rest is shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from laconic.cache.observe import Observation
from laconic.errors import BudgetError
from laconic.method import Method
from laconic.ops.select import Selection, from_mask, top_k
from laconic.step import Step


@dataclass(kw_only=True)
class CacheMethod(Method):
    """Evict entries of every full-attention layer when a prefill pass has run it.

    A subclass gives `score`; it may name entries that always stay (`forced`), spread the budget over layers
    (`layer_entries`), choose across heads (`choose`, with ``ragged = True``), shorten the stream (`stream`), accumulate
    something per entry (`columns`), and go on evicting while decoding (``decodes = True``).
    """

    claims: ClassVar[frozenset[str]] = frozenset({"cache.entries"})
    ragged: ClassVar[bool] = False
    decodes: ClassVar[bool] = False

    def score(self, seen: Observation) -> torch.Tensor:
        """Importance of every entry, higher stays: [B, Hkv, n]."""
        raise NotImplementedError(f"{type(self).__name__} must define score().")

    def forced(self) -> tuple[int, int]:
        """How many first (sinks) and last (recent) tokens always stay. They count against the budget, and may use half of
        it at most: a budget below a method's window still leaves room for what the scores choose."""
        return 0, 0

    def layer_entries(self, layer: int, layers: int, mean: int, seen: int) -> int:
        """Entries for compressed layer `layer` of `layers` when the mean is `mean` of `seen` tokens. Default: uniform."""
        return mean

    def choose(self, rank: torch.Tensor, seen: Observation) -> Selection:
        """From ranks [B, Hkv, n] to the entries that stay. Default: the best of every head."""
        return top_k(rank, seen.targets)

    def stream(self, seen: Observation) -> torch.Tensor | None:
        """Positions [B, m] (sorted) of this pass that travel on to the next layers; None leaves the stream alone."""
        return None

    def shortens_from(self, layers: int) -> int | None:
        """First decoder layer (of `layers`) that runs on a shortened stream, or None when `stream` is not used."""
        return None

    def columns(self, seen: Observation) -> dict[str, torch.Tensor]:
        """What to remember per entry, [B, Hkv, n] each, by column name."""
        return {}

    # -- shared ----------------------------------------------------------------------------------------------------
    def targets(self, layer: int, layers: int, step: Step, real: list[int], bytes_per_entry: int) -> list[int]:
        """Entries that may stay in each batch row of this layer."""
        return [
            max(1, min(count, self.layer_entries(layer, layers, self.budget.entries(tokens, bytes_per_entry), tokens)))
            for count, tokens in zip(real, step.real, strict=True)
        ]

    def rank(self, seen: Observation) -> torch.Tensor:
        """Scores with padding at -inf, forced entries at the top, protected ones above them, fp32 [B, Hkv, n]."""
        rank = self.score(seen).float()
        if rank.shape != seen.keys.shape[:3]:
            raise ValueError(
                f"{self.name}: score() returned {tuple(rank.shape)}, needed one score per entry, "
                f"{tuple(seen.keys.shape[:3])}."
            )
        top = torch.finfo(torch.float32).max
        sinks, recent = self.forced()
        if sinks or recent:
            rank = rank.masked_fill(_ends(seen, sinks, recent), top)
        if seen.protected is not None:
            rank = rank.masked_fill(seen.protected, float("inf"))
        return rank if seen.valid is None else rank.masked_fill(~seen.valid, float("-inf"))

    def select(self, seen: Observation) -> Selection | None:
        """The entries that stay, or None when the budget holds them all."""
        self._check_protected(seen)
        if all(target >= real for target, real in zip(seen.targets, seen.real, strict=True)):
            return None
        selection = self.choose(self.rank(seen), seen)
        if seen.valid is None:
            return selection
        n = seen.keys.shape[2]  # a row with fewer real entries than its neighbours must not fill up with padding
        kept = torch.zeros(*seen.keys.shape[:2], n + 1, dtype=torch.bool, device=seen.keys.device)
        return from_mask(kept.scatter_(2, selection.index, True)[..., :n] & seen.valid)

    def _check_protected(self, seen: Observation) -> None:
        if seen.protected is None:
            return
        counts = seen.protected.sum(-1).amax(-1).tolist()
        for count, target in zip(counts, seen.targets, strict=True):
            if count > target:
                raise BudgetError(
                    f"{self.name}: {count} tokens are protected but the budget ({self.budget}) leaves {target} entries in "
                    f"layer {seen.layer}. Raise the budget or protect less."
                )


def _ends(seen: Observation, sinks: int, recent: int) -> torch.Tensor:
    """The first `sinks` and last `recent` real tokens, each up to half of the budget that protection leaves, [B, Hkv, n]."""
    index = seen.index
    if seen.valid is None and seen.protected is None and len(set(seen.targets)) == 1:  # one budget: a few operations do
        most = seen.targets[0] // 2
        ends = index > index.amax(-1, keepdim=True) - min(most, recent)
        return ends | (index < index.amin(-1, keepdim=True) + min(most, sinks)) if sinks else ends
    real = seen.valid if seen.valid is not None else torch.ones_like(index, dtype=torch.bool)
    last = index.masked_fill(~real, -1).amax(-1, keepdim=True)
    first = index.masked_fill(~real, torch.iinfo(index.dtype).max).amin(-1, keepdim=True)
    left = torch.tensor(seen.targets, device=index.device)[:, None, None]
    if seen.protected is not None:  # protection comes first
        left = (left - seen.protected.sum(-1, keepdim=True)).clamp(min=0)
    half = left // 2
    return (index > last - half.clamp(max=recent)) | (index < first + half.clamp(max=sinks))

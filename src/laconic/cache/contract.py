"""The contract of methods that decide which cache entries stay: give scores; the rest is shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from laconic.cache.hooks import ChoosesAcrossHeads
from laconic.cache.layer import CompressedLayer, selected
from laconic.cache.observe import Observation
from laconic.cache.parts.base import DensePart, Part
from laconic.cache.seam import EntriesSeam
from laconic.errors import BudgetError
from laconic.method import Method, Reuse
from laconic.ops.select import Selection, from_mask, top_k
from laconic.seams import Seam
from laconic.step import Step


@dataclass(kw_only=True)
class CacheMethod(Method):
    """Evict entries of every full-attention layer after each prefill pass through it.

    A subclass gives `score`; it may name entries that always stay (`forced`), spread the budget over layers
    (`layer_entries`), accumulate something per entry (`columns`), and go on evicting while decoding
    (``evicts_while_decoding = True``). What few methods need is in `laconic.cache.hooks`: a choice across heads, queries of
    earlier passes, sparse prefill, a shortened stream, pseudo tokens.

    A method that does more than choose overrides `reduce` (merge entries, add stand-ins, store in another form) and
    `decoded` (what happens after a decoded token; `due` says whether anything does, so that most tokens cost nothing).
    """

    claims: ClassVar[frozenset[str]] = frozenset({"cache.entries"})
    seams: ClassVar[tuple[type[Seam], ...]] = (EntriesSeam,)
    reuse: ClassVar[Reuse] = "continue"
    ragged: ClassVar[bool] = False
    """Heads keep different numbers of entries."""
    evicts_while_decoding: ClassVar[bool] = False

    @property
    def undoes_rope(self) -> bool:
        """Whether this setting turns queries or keys back to what they were before RoPE, or to other positions. A session
        refuses a model in which that cannot be done."""
        return False

    def score(self, obs: Observation) -> torch.Tensor:
        """Importance of every entry, higher stays: [B, Hkv, n]."""
        raise NotImplementedError(f"{type(self).__name__} must define score().")

    def forced(self) -> tuple[int, int]:
        """How many first (sinks) and last (recent) tokens always stay. They count against the budget and may take up to half
        of it each, so that a budget smaller than a method's window still leaves room for what the scores choose."""
        return 0, 0

    def layer_entries(self, layer: int, layers: int, mean: int, seen: int) -> int:
        """Entries for compressed layer `layer` of `layers` when the mean is `mean` of `seen` tokens. Default: uniform."""
        return mean

    def columns(self, obs: Observation) -> dict[str, torch.Tensor]:
        """What to remember per entry, [B, Hkv, n] each, by column name."""
        return {}

    def reduce(self, layer: CompressedLayer, obs: Observation, columns: dict[str, torch.Tensor]) -> list[Part] | None:
        """What the layer is to store of ``obs.keys`` and ``obs.values``; None leaves all entries as they are.

        Args:
            columns: of all entries [B, Hkv, n], `index` among them; `valid` when some are not real.

        Returns:
            parts, the last of which can grow (`DensePart` or `RaggedPart`). Default: the entries that `select` names.
        """
        selection = self.select(obs)
        if selection is None:
            return None
        return [selected(obs.keys, obs.values, columns, selection, self.ragged)]

    def due(self, layer: CompressedLayer) -> bool:
        """Whether something has to be done about the layer now that one more token was decoded. Must be cheap."""
        return self.evicts_while_decoding and isinstance(layer.parts[-1], DensePart)

    def decoded(self, layer: CompressedLayer, obs: Observation) -> None:
        """One token was decoded and appended (the last entry of `obs`), and `due` said yes. Default: update the columns and
        evict what is over the budget, one entry per head and token, in place."""
        part = layer.parts[-1]
        assert isinstance(part, DensePart)
        columns = self.columns(obs)
        part.write(columns)
        over = [real - target for real, target in zip(obs.real, obs.targets, strict=True)]
        if max(over) <= 0:
            return
        if max(over) > 1:
            parts = self.reduce(layer, obs, {**part.columns, "index": obs.index})
            if parts is not None:
                layer.store(parts)
            return
        rank = self.rank(obs)
        if obs.valid is not None:
            rank = rank.masked_fill(~obs.valid, float("inf"))
        if not part.has("index"):  # the first eviction of all: from now on an entry's place no longer tells its token
            part.write({"index": obs.index})
        evict = None
        if min(over) < 1:
            evict = torch.tensor(over, device=rank.device)[:, None].expand(rank.shape[:2]) > 0
        part.replace(rank.argmin(-1), evict)
        layer.evicted = True

    # -- shared ----------------------------------------------------------------------------------------------------
    def targets(self, layer: int, layers: int, step: Step, real: list[int], bytes_per_entry: int) -> list[int]:
        """Entries that may stay in each batch row of this layer."""
        return [
            max(1, min(count, self.layer_entries(layer, layers, self.budget.entries(tokens, bytes_per_entry), tokens)))
            for count, tokens in zip(real, step.real, strict=True)
        ]

    def rank(self, obs: Observation) -> torch.Tensor:
        """Scores with padding at -inf, forced entries at the top, protected ones above them, fp32 [B, Hkv, n]."""
        rank = self.score(obs).float()
        if rank.shape != obs.keys.shape[:3]:
            raise ValueError(
                f"{self.name}: score() returned {tuple(rank.shape)}, needed one score per entry, "
                f"{tuple(obs.keys.shape[:3])}."
            )
        top = torch.finfo(torch.float32).max
        sinks, recent = self.forced()
        if sinks or recent:
            rank = rank.masked_fill(_ends(obs, sinks, recent), top)
        if obs.protected is not None:
            rank = rank.masked_fill(obs.protected, float("inf"))
        return rank if obs.valid is None else rank.masked_fill(~obs.valid, float("-inf"))

    def checked_rank(self, obs: Observation) -> torch.Tensor:
        """`rank`, once it is sure that the budget holds what is protected; raises `BudgetError` where it does not."""
        self._check_protected(obs)
        return self.rank(obs)

    def select(self, obs: Observation) -> Selection | None:
        """The entries that stay, or None when the budget holds them all."""
        self._check_protected(obs)
        if all(target >= real for target, real in zip(obs.targets, obs.real, strict=True)):
            return None
        rank = self.rank(obs)
        selection = self.choose(rank, obs) if isinstance(self, ChoosesAcrossHeads) else top_k(rank, obs.targets)
        if obs.valid is None:
            return selection
        n = obs.keys.shape[2]  # a row with fewer real entries than its neighbours must not fill up with padding
        kept = torch.zeros(*obs.keys.shape[:2], n + 1, dtype=torch.bool, device=obs.keys.device)
        return from_mask(kept.scatter_(2, selection.index, True)[..., :n] & obs.valid)

    def _check_protected(self, obs: Observation) -> None:
        if obs.protected is None:
            return
        counts = obs.protected.sum(-1).amax(-1).tolist()
        for count, target in zip(counts, obs.targets, strict=True):
            if count > target:
                raise BudgetError(
                    f"{self.name}: {count} tokens are protected but the budget ({self.budget}) leaves {target} entries in "
                    f"layer {obs.layer}. Raise the budget or protect less."
                )


def _ends(obs: Observation, sinks: int, recent: int) -> torch.Tensor:
    """The first `sinks` and last `recent` real tokens, each up to half of the budget that protection leaves, [B, Hkv, n]."""
    index, step = obs.index, obs.step
    seen_tokens = step.start + step.length
    if obs.valid is None and obs.protected is None and all(real == seen_tokens for real in step.real):
        most = obs.targets[0] // 2  # no padding was ever there: a few operations do
        ends = index >= seen_tokens - min(most, recent) if recent else None
        if not sinks:
            assert ends is not None
            return ends
        first = index < min(most, sinks)
        return first if ends is None else ends | first
    real = obs.valid if obs.valid is not None else torch.ones_like(index, dtype=torch.bool)
    last = index.masked_fill(~real, -1).amax(-1, keepdim=True)
    first = index.masked_fill(~real, torch.iinfo(index.dtype).max).amin(-1, keepdim=True)
    left = torch.tensor(obs.targets, device=index.device)[:, None, None]
    if obs.protected is not None:  # protection comes first
        left = (left - obs.protected.sum(-1, keepdim=True)).clamp(min=0)
    half = left // 2
    return (index > last - half.clamp(max=recent)) | (index < first + half.clamp(max=sinks))

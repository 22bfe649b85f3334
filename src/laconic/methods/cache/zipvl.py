"""ZipVL: each layer finds how many tokens matter to it; only those attend, and only those stay (arXiv 2410.08584)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from laconic.cache.contract import CacheMethod
from laconic.cache.layer import CompressedLayer, selected
from laconic.cache.observe import Observation
from laconic.cache.parts.base import DensePart, Part
from laconic.cache.parts.quantised import QuantisedPart, without_filler
from laconic.errors import BudgetError
from laconic.method import register
from laconic.ops.quantise import GROUP, quantise_keys, quantise_values
from laconic.ops.select import Selection, best, from_mask
from laconic.step import gather

HIGH, LOW = 4, 2
_SCORES = 1 << 22  # numbers in one block of attention rows


@register(
    "zipvl",
    site="cache",
    modality="text, image, video",
    mechanism="sparse prefill, eviction or mixed precision",
    principle="attention",
    source="arXiv 2410.08584",
    query_aware=True,
    inferred="mean over heads; tau; sink and last token are forced in; the refresh asks the latest queries; the quantiser; "
    "a budget fixes the number of important tokens; feed-forward layers run on all tokens",
)
@dataclass(kw_only=True)
class ZipVL(CacheMethod):
    """Find the smallest set of tokens that holds the share `tau` of a few probe rows' attention, separately in every layer.

    In prefill only the important tokens attend, and to each other alone; the residual connection carries the others on, so
    they may matter to a later layer. Of the cache the important ones stay (``mode="evict"``, v2 of the paper), or all stay,
    the important ones in 4 bits and the others in 2 (``mode="quant"``, v1). While decoding the choice is made again every
    `refresh` tokens. In a later pass stored entries compete with the new ones; attention narrows among the new ones.

    Args:
        keep, tokens, bytes: the number of important tokens is this budget, in every layer, and `tau` is ignored. With
            ``mode="quant"`` the budget is one of bytes: as many entries are important as fit.
        tau: share of the probes' attention that the important tokens hold (0.975); 1 makes all of them important.
        mode: ``"evict"`` or ``"quant"``.
        probes: probe rows: the latest tokens, and tokens drawn from the rest of the pass (64 and 64).
        refresh: tokens decoded between two choices (100); 0 never chooses again.
        short: passes over fewer entries than this attend densely (256).
        seed: of the drawn probes.
    """

    tau: float = 0.975
    mode: Literal["evict", "quant"] = "evict"
    probes: Sequence[int] = (64, 64)
    refresh: int = 100
    short: int = 256
    seed: int = 0

    claims: ClassVar[frozenset[str]] = frozenset({"cache.entries", "cache.storage"})
    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.tau <= 1:
            raise ValueError(f"zipvl: tau={self.tau} must be in (0, 1].")
        if self.mode not in ("evict", "quant"):
            raise ValueError(f"zipvl: mode={self.mode!r}: choose 'evict' or 'quant'.")
        if len(self.probes) != 2 or self.probes[0] < 1 or self.probes[1] < 0:
            raise ValueError(f"zipvl: probes={self.probes} must be two numbers, at least 1 recent and 0 drawn ones.")
        if self.refresh < 0 or self.short < 0:
            raise ValueError(f"zipvl: refresh={self.refresh} and short={self.short} must not be negative.")

    def queries_kept(self) -> int:
        return self.refresh

    # -- which tokens matter ---------------------------------------------------------------------------------------
    def probe_places(self, obs: Observation) -> tuple[torch.Tensor, torch.Tensor]:
        """Places of the probe rows in this pass [B, m], and which of them are real [B, m]: rows have as many as they can."""
        recent, drawn = self.probes
        valid, t = obs.step.valid, obs.new
        added = [t] * obs.keys.shape[0] if valid is None else valid.sum(-1).tolist()
        rows = []
        for real in added:  # drawn from each sequence alone, whatever else is in the batch
            rest = max(0, real - recent)
            order = torch.randperm(rest, generator=torch.Generator().manual_seed(self.seed))[:drawn]
            rows.append(torch.cat([order.sort().values, torch.arange(rest, real)]) + t - real)
        m = max(len(row) for row in rows)
        places = torch.zeros(len(rows), m, dtype=torch.long)
        real_probes = torch.zeros(len(rows), m, dtype=torch.bool)
        for i, row in enumerate(rows):
            places[i, m - len(row) :], real_probes[i, m - len(row) :] = row, True
        return places.to(obs.keys.device), real_probes.to(obs.keys.device)

    def important(self, obs: Observation) -> torch.Tensor:
        """The important entries of every row, one choice for all heads, [B, n]."""
        return best(*self.ranked(obs))

    def ranked(self, obs: Observation) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised scores with forced tokens on top and padding at -inf [B, n], and the number of important entries [B].
        Computed once per observation."""
        return obs.once("zipvl.ranked", lambda: self._ranked(obs))

    def _ranked(self, obs: Observation) -> tuple[torch.Tensor, torch.Tensor]:
        if obs.step.prefill:
            places, real = self.probe_places(obs)
            queries, tokens = gather(obs.queries, places, 2), obs.step.token_index(len(obs.real)).gather(1, places)
        else:
            queries = obs.state["queries"]
            end = obs.step.start + obs.step.length
            tokens = torch.arange(end - queries.shape[2], end, device=queries.device).expand(queries.shape[0], -1)
            real = torch.ones_like(tokens, dtype=torch.bool)
        mass, probes = received(queries, tokens, real, obs)
        forced, rank = self._forced(obs, mass / probes.clamp(min=1))
        return rank, torch.maximum(self._counts(obs, mass), forced)

    def _forced(self, obs: Observation, score: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """How many entries must be important [B], and scores with them on top: protected ones, the last, the first."""
        index = obs.index[:, 0].long()
        real = torch.ones_like(index, dtype=torch.bool) if obs.valid is None else obs.valid[:, 0]
        last = index == index.masked_fill(~real, -1).amax(-1, keepdim=True)
        first = index == index.masked_fill(~real, torch.iinfo(torch.long).max).amin(-1, keepdim=True)
        must = torch.zeros_like(real) if obs.protected is None else obs.protected[:, 0]
        rank = score.masked_fill(first, 2.0).masked_fill(last, 3.0).masked_fill(must, float("inf"))
        count = must.sum(-1)
        if self.budget_from_parameters:
            count = ((must | first | last) & real).sum(-1)
        return count, rank.masked_fill(~real, float("-inf"))

    def _counts(self, obs: Observation, mass: torch.Tensor) -> torch.Tensor:
        """How many entries are important in every row, [B]."""
        real = torch.tensor(obs.real, device=mass.device)
        if not self.budget_from_parameters:
            return self._within_budget(obs).to(mass.device)
        if self.tau == 1:
            return real
        asked = mass.sum(-1) > 0  # a row without a real token in this pass asks for nothing and loses nothing
        return torch.where(asked, smallest_prefix(mass, self.tau), real).minimum(real)

    def _within_budget(self, obs: Observation) -> torch.Tensor:
        targets, real = torch.tensor(obs.targets), torch.tensor(obs.real)
        if self.mode == "evict":
            self._check_protected(obs)
            return targets.minimum(real)
        head_dim, itemsize = obs.keys.shape[-1], obs.keys.itemsize
        high, low = (share_of_bytes(bits, head_dim, itemsize) for bits in (HIGH, LOW))
        share = targets / real.clamp(min=1) if self.keep is None else torch.tensor(self.keep)
        fits = ((share - low) / (high - low) * real + 1e-6).floor().long()
        if bool((fits < 0).any()) and obs.step.prefill:
            raise BudgetError(
                f"zipvl: {self.budget} is less than {low:.3f} of the bytes, what all entries take at {LOW} bits; ask for "
                "more, or use mode='evict'."
            )
        return fits.clamp(min=0).minimum(real)

    # -- what the core calls ----------------------------------------------------------------------------------------
    @property
    def in_bytes(self) -> bool:
        return self.mode == "quant"

    def narrow(self, obs: Observation) -> torch.Tensor | None:
        if obs.keys.shape[2] < self.short:
            return None
        chosen = self.important(obs)[:, -obs.new :]
        if bool(chosen.all()):
            return None
        places = torch.arange(obs.new, device=chosen.device).where(chosen, -1)
        return places.sort(-1).values[:, -int(chosen.sum(-1).max()) :]

    def reduce(self, layer: CompressedLayer, obs: Observation, columns: dict[str, torch.Tensor]) -> list[Part] | None:
        obs.state["chosen_at"] = torch.full((len(obs.real),), obs.step.start + obs.step.length)
        chosen = self.important(obs)
        obs.state.pop("queries", None)  # the next choice, `refresh` tokens from now, asks those of the tokens in between
        real = torch.ones_like(chosen) if obs.valid is None else obs.valid[:, 0]
        shape = (-1, obs.keys.shape[1], -1)
        if self.mode == "quant":
            parts = [
                quantised(obs, columns, from_mask(mask[:, None].expand(shape)), bits)
                for mask, bits in ((chosen, HIGH), (real & ~chosen, LOW))
                if bool(mask.any())
            ]
            nothing = {"index": obs.index[:, :, :0]}
            return [*parts, DensePart(obs.keys[:, :, :0], obs.values[:, :, :0], nothing, room=max(32, self.refresh))]
        if bool((chosen == real).all()):
            return None
        return [selected(obs.keys, obs.values, columns, from_mask(chosen[:, None].expand(shape)), self.ragged)]

    def due(self, layer: CompressedLayer) -> bool:
        if not self.refresh:
            return False
        at = layer.state.get("chosen_at")
        return layer.seen - (0 if at is None else int(at[0])) >= self.refresh

    def decoded(self, layer: CompressedLayer, obs: Observation) -> None:
        parts = self.reduce(layer, obs, {**obs.columns, "index": obs.index})
        if parts is not None:
            layer.store(parts)


def received(
    queries: torch.Tensor, tokens: torch.Tensor, real: torch.Tensor, obs: Observation
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention that every entry gets from probe rows, mean over heads, summed over probes, and how many of them see it.

    Args:
        queries: of the probes, [B, H, m, D]; tokens: their token numbers [B, m]; real: False where a row has fewer.

    Returns:
        ``a_j = sum_c mean_h A[c, j]`` and ``nnz_j``, fp32 [B, n] each.
    """
    (b, h, m, d), (hkv, n) = queries.shape, obs.keys.shape[1:3]
    mass = torch.zeros(b, n, device=queries.device)
    probes = torch.zeros(b, n, device=queries.device)
    hidden = None if obs.valid is None else ~obs.valid[:, :1]
    size = max(1, _SCORES // (b * h * n))
    for start in range(0, m, size):
        rows = slice(start, start + size)
        unseen = (obs.index[:, :1] > tokens[:, rows, None]) | ~real[:, rows, None]  # [B, size, n]
        if hidden is not None:
            unseen |= hidden
        block = (queries[:, :, rows] * obs.scale).reshape(b, hkv, -1, d)
        logits = torch.matmul(block, obs.keys.transpose(-1, -2)).float().view(b, h, -1, n)
        if obs.softcap is not None:
            logits = obs.softcap * torch.tanh(logits / obs.softcap)
        weights = logits.masked_fill_(unseen[:, None], float("-inf")).softmax(-1)
        mass += weights.masked_fill_(unseen[:, None], 0.0).sum((1, 2)) / h
        probes += (~unseen).sum(1)
    return mass, probes


def smallest_prefix(mass: torch.Tensor, tau: float) -> torch.Tensor:
    """mass [B, n] -> ``p = min{p : sum of the p largest >= tau * sum of all}`` [B]; the sum of all is that of the probes."""
    held = mass.double().sort(-1, descending=True).values.cumsum(-1)
    return (held < held[:, -1:] * (tau - 1e-7)).sum(-1) + 1


def share_of_bytes(bits: int, head_dim: int, itemsize: int) -> float:
    """Bytes of packed entries by those of plain ones: codes, and a float16 step and zero per group of 64 tokens (keys) or of
    up to 64 channels (values)."""
    return (bits + 16 * (1 / GROUP + 1 / min(GROUP, head_dim))) / (8 * itemsize)


def quantised(obs: Observation, columns: dict[str, torch.Tensor], chosen: Selection, bits: int) -> QuantisedPart:
    """The chosen entries in a few bits; rows with fewer are filled up with entries that are not `valid`."""
    n = obs.keys.shape[2]
    index = chosen.index.clamp(max=n - 1)
    columns = {name: column.gather(2, index) for name, column in columns.items()}
    if chosen.lengths is not None:
        columns["valid"] = chosen.index < n
    elif "valid" in columns:
        del columns["valid"]
    keys, values = (x.gather(2, index[..., None].expand(*index.shape, x.shape[-1])) for x in (obs.keys, obs.values))
    keys = without_filler(keys, columns, GROUP)
    return QuantisedPart(quantise_keys(keys, bits), quantise_values(values, bits), columns, keys.dtype)

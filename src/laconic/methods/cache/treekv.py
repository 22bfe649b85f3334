"""TreeKV: evictions sweep over neighbouring pairs, so the cache thins out smoothly with distance (arXiv 2501.04987)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from laconic import checks
from laconic.cache.contract import CacheMethod
from laconic.cache.layer import CompressedLayer, selected
from laconic.cache.observe import Observation
from laconic.cache.parts.base import DensePart, Part
from laconic.cache.parts.ranked import RankedPart, by_rank, token_positions
from laconic.method import register
from laconic.ops.select import Selection


@register(
    "treekv",
    site="cache",
    mechanism="eviction",
    source="arXiv 2501.04987",
    query_aware=True,
    inferred="written from notes on the paper: block size, initial mass and count after a prompt, "
    "the mean over the query heads of a KV head, and the behaviour of small budgets",
)
@dataclass(kw_only=True)
class TreeKV(CacheMethod):
    """Compare two neighbouring entries, drop the one with less average attention, move on by one, wrap around.

    The cache is sinks, candidates and recent entries; ``c'`` candidates may stay. Once there are ``c' + 1``, those at the
    places `idx` and ``idx + 1`` are compared by ``S / T`` (attention received over queries that could give it; a tie drops
    the older), and ``idx = idx mod c' + 1`` (algorithm 1). Every sweep halves the density of what it passes over. A prompt
    goes through the same rule by blocks, scored by the queries of its last block, which stays, as do the sinks; decoding
    then drops one entry per token. The budget is recomputed at every token: `keep` lets the cache grow with the tokens seen.

    Args:
        sinks: first tokens that always stay (4), at most a quarter of the budget.
        recent: newest entries that are not candidates while decoding; None is half of the budget minus the sinks (508 of
            1024).
        block: tokens per block of a prompt (32), at most an eighth of the budget.
        positions: ``"original"`` leaves keys where they were; ``"rank"`` rotates every key to its place in the cache, as
            published for streams beyond the trained length (costs one rotation of all keys per token).
        tree_only: drop the older of every pair, whatever its attention (the ablation).
    """

    sinks: int = 4
    recent: int | None = None
    block: int = 32
    positions: Literal["original", "rank"] = "original"
    tree_only: bool = False
    evicts_while_decoding = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole(self, "sinks")
        if self.recent is not None:
            checks.whole(self, "recent")
        checks.whole(self, "block", 1)
        checks.one_of(self, "positions", "original", "rank")

    @property
    def undoes_rope(self) -> bool:
        return self.positions == "rank"

    def split(self, capacity: int) -> tuple[int, int, int]:
        """How many sinks, candidates and recent entries make up `capacity`; at least one candidate if there is room."""
        sinks = min(self.sinks, capacity // 4)
        recent = capacity // 2 - sinks if self.recent is None else min(self.recent, capacity - sinks - 1)
        return sinks, capacity - sinks - max(0, recent), max(0, recent)

    # -- prompts ---------------------------------------------------------------------------------------------------
    def columns(self, obs: Observation) -> dict[str, torch.Tensor]:
        """After a prefill pass: S and T of all entries: the old sums plus what the window of this pass adds."""
        mass, count = self._window(obs)
        count = count[:, None].expand(mass.shape).clone()
        for name, total in (("mass", mass), ("count", count)):
            if name in obs.columns:
                total[..., : -obs.new] += obs.columns[name]
        columns = {"mass": mass, "count": count, "rank": ages(obs)}
        return columns if self.positions == "original" else {**columns, "position": token_positions(obs)}

    def reduce(self, layer: CompressedLayer, obs: Observation, columns: dict[str, torch.Tensor]) -> list[Part] | None:
        self._check_protected(obs)
        fits = all(target >= real for target, real in zip(obs.targets, obs.real, strict=True))
        if fits and self.positions == "original":
            return None
        return [self._swept(layer, obs, columns, self._window(obs)[0], blocks=True)]

    def _window(self, obs: Observation) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention of the last block's queries, summed, mean over the group [B, Hkv, n]; how many could give it [B, n]."""
        if self.positions == "rank" and obs.keys.shape[2] > obs.new:
            obs = by_rank(obs, ages(obs), token_positions(obs))
        sizes = torch.tensor([self._block(capacity) for capacity in capacities(obs)], device=obs.keys.device)
        w = min(int(sizes.max()), obs.new)
        votes = torch.arange(w, 0, -1, device=sizes.device) <= sizes[:, None]  # every row has a window of its own
        if obs.step.valid is not None:
            votes &= obs.step.valid[:, -w:]
        mass = (obs.window(w).mean(2) * votes[:, None, :, None]).sum(2)
        later = votes.flip(1).cumsum(1).flip(1)
        return mass, torch.cat([later[:, :1].expand(-1, mass.shape[-1] - w), later], 1).float()

    def _block(self, capacity: int) -> int:
        return max(1, min(self.block, capacity // 8))

    def _swept(
        self, layer: CompressedLayer, obs: Observation, columns: dict[str, torch.Tensor], scores: torch.Tensor, blocks: bool
    ) -> DensePart:
        """What a sweep over all entries leaves, oldest first; by `blocks` as in a prompt, or by single entries."""
        order, rows = oldest_first(obs), []
        name = "block_pointer" if blocks else "pointer"
        pointers = obs.state.get(name, torch.zeros(order.shape[0], dtype=torch.long, device=order.device)).tolist()
        for b, capacity in enumerate(capacities(obs)):
            age = order[b, :, order.shape[-1] - obs.real[b] :]
            held = torch.zeros_like(age, dtype=torch.bool) if obs.protected is None else obs.protected[b].gather(1, age)
            free = age[~held].view(age.shape[0], -1)  # without protected entries
            stays = torch.ones_like(free, dtype=torch.bool)
            if capacity < free.shape[1]:
                stays, pointers[b] = self._stay(scores[b].gather(1, free), capacity, pointers[b], blocks)
            kept = held.masked_scatter(~held, stays) | held
            rows.append(age[kept].view(age.shape[0], -1))
        obs.state[name] = torch.tensor(pointers, device=order.device)
        return self._stored(layer, obs, columns, rows)

    def _stay(self, scores: torch.Tensor, capacity: int, pointer: int, blocks: bool) -> tuple[torch.Tensor, int]:
        """scores [Hkv, m] of the unprotected entries, oldest first -> which `capacity` of them stay, and the new pointer."""
        heads, m = scores.shape
        sinks, _, recent = self.split(capacity)
        size = 1
        if blocks and capacity:
            size = self._block(capacity)
            recent = size + (m - sinks) % size  # the window, and a block that is not yet full
        region = scores[:, sinks : m - recent].reshape(heads, -1, size)
        room, rest = divmod(capacity - sinks - recent, size)
        kept, pointer = sweep(region.mean(-1), room, pointer, self.tree_only)
        within = torch.zeros(region.shape[:2], dtype=torch.bool, device=scores.device).scatter_(1, kept, True)
        within = within.repeat_interleave(size, 1)
        within |= ~within & ((~within).flip(1).cumsum(1).flip(1) <= rest)  # less than a block remains: newest first
        stays = torch.ones_like(scores, dtype=torch.bool)
        stays[:, sinks : m - recent] = within
        return stays, pointer

    def _stored(
        self, layer: CompressedLayer, obs: Observation, columns: dict[str, torch.Tensor], rows: list[torch.Tensor]
    ) -> DensePart:
        """A part of the entries `rows` (one [Hkv, m] per batch row, oldest first)."""
        n, most = obs.keys.shape[2], max(row.shape[1] for row in rows)
        index = torch.stack([torch.nn.functional.pad(row, (0, most - row.shape[1]), value=n) for row in rows])
        lengths = None
        if any(row.shape[1] < most for row in rows):
            lengths = torch.tensor([row.shape[1] for row in rows], device=index.device)[:, None].expand(index.shape[:2])
        columns = {name: column for name, column in columns.items() if name != "valid"}
        part = selected(obs.keys, obs.values, columns, Selection(index, lengths), ragged=False)
        assert isinstance(part, DensePart)
        part.write({"rank": torch.arange(most, device=index.device)})
        return part if self.positions == "original" else RankedPart.of(part, layer)

    # -- decoding --------------------------------------------------------------------------------------------------
    def decoded(self, layer: CompressedLayer, obs: Observation) -> None:
        part = self._part(layer, obs)
        columns = part.columns
        rank, view = ranks(columns, obs.valid), obs
        if isinstance(part, RankedPart):
            view = by_rank(obs, rank, columns["position"])
        columns["rank"].copy_(rank)
        columns["mass"].add_(view.last().mean(2))
        columns["count"].add_(1)
        over = [real - target for real, target in zip(obs.real, obs.targets, strict=True)]
        if max(over) <= 0:
            return
        self._check_protected(obs)
        if not part.has("index"):  # from now on the place no longer tells the token
            part.write({"index": obs.index})
        if max(over) > 1:  # entries that were held are now subject to the rule
            scores = columns["mass"] / columns["count"]
            layer.store([self._swept(layer, obs, part.columns, scores, blocks=False)])
        else:
            self._evict(part, obs, over)
        layer.evicted = True

    def _part(self, layer: CompressedLayer, obs: Observation) -> DensePart:
        """The layer's part with all columns that decoding needs."""
        part = layer.parts[-1]
        assert isinstance(part, DensePart)
        for name in ("mass", "count", "rank"):
            if not part.has(name):  # the prompt came while the session was holding everything
                part.write({name: torch.zeros((), device=obs.keys.device)})
        if self.positions == "rank" and not isinstance(part, RankedPart):
            part.write({"index": obs.index, "position": token_positions(obs)})
            layer.parts[-1] = part = RankedPart.of(part, layer)
        return part

    def _evict(self, part: DensePart, obs: Observation, over: list[int]) -> None:
        """Evict one entry per head in every row that is over its budget, in place."""
        columns, device = part.columns, obs.keys.device
        pointers = obs.state.get("pointer", torch.zeros(len(over), dtype=torch.long, device=device))
        splits = [self.split(capacity) for capacity in capacities(obs)]
        sinks, candidates, _ = torch.tensor(splits, device=device).T
        pointers = pointers % candidates.clamp(min=1)
        place = places(columns["rank"], obs)
        left = (place == (sinks + pointers)[:, None, None]).int().argmax(-1, keepdim=True)
        right = (place == (sinks + pointers + 1)[:, None, None]).int().argmax(-1, keepdim=True)
        score = columns["mass"] / columns["count"]
        older_stays = (score.gather(2, left) > score.gather(2, right)) & (candidates > 0)[:, None, None]
        drop = left if self.tree_only else torch.where(older_stays, right, left)
        evict = torch.tensor(over, device=device) > 0
        columns["rank"].sub_(((columns["rank"] > columns["rank"].gather(2, drop)) & evict[:, None, None]).int())
        obs.state["pointer"] = torch.where(evict, (pointers + 1) % candidates.clamp(min=1), pointers)
        part.replace(drop[..., 0], None if min(over) > 0 else evict[:, None].expand(drop.shape[:2]))


def sweep(scores: torch.Tensor, capacity: int, pointer: int, tree_only: bool = False) -> tuple[torch.Tensor, int]:
    """The cyclic rule over items that arrive one by one: scores [heads, m], oldest first -> the numbers of the `capacity`
    that stay, ascending [heads, capacity], and the pointer (from 0) for later ones."""
    heads, m = scores.shape
    kept = torch.arange(min(m, capacity), device=scores.device).expand(heads, -1)
    if capacity == 0:
        return kept, pointer
    for new in range(capacity, m):
        kept = torch.cat([kept, kept.new_full((heads, 1), new)], 1)
        i = pointer % capacity
        left, right = kept[:, i : i + 1], kept[:, i + 1 : i + 2]
        older_stays = scores.gather(1, left) > scores.gather(1, right)
        winner = right if tree_only else torch.where(older_stays, left, right)
        kept = torch.cat([kept[:, :i], winner, kept[:, i + 2 :]], 1)
        pointer = (i + 1) % capacity
    return kept, pointer


def capacities(obs: Observation) -> list[int]:
    """Entries that may stay in every batch row in addition to the protected ones."""
    if obs.protected is None:
        return obs.targets
    counts = obs.protected.sum(-1).amax(-1).tolist()
    return [max(0, target - count) for target, count in zip(obs.targets, counts, strict=True)]


def oldest_first(obs: Observation) -> torch.Tensor:
    """Entry numbers by age, padding first, [B, Hkv, n]."""
    index = obs.index if obs.valid is None else obs.index.masked_fill(~obs.valid, -1)
    return index.argsort(dim=-1, stable=True)


def ages(obs: Observation) -> torch.Tensor:
    """Places by age among the real entries, [B, Hkv, n]; negative at padding."""
    place = oldest_first(obs).argsort(-1)
    return place if obs.valid is None else place - (~obs.valid).sum(-1, keepdim=True)


def ranks(columns: dict[str, torch.Tensor], valid: torch.Tensor | None) -> torch.Tensor:
    """Places by age of all real entries, [B, Hkv, n]. Entries that no query has counted yet come last, in storage order."""
    fresh = columns["count"] == 0
    known = ~fresh
    if valid is not None:
        fresh, known = fresh & valid, known & valid
    return torch.where(fresh, known.sum(-1, keepdim=True) + fresh.cumsum(-1) - 1, columns["rank"]).int()


def places(rank: torch.Tensor, obs: Observation) -> torch.Tensor:
    """Places by age among the real unprotected entries, [B, Hkv, n]; -1 at the others. No sort: ranks are a permutation."""
    if obs.protected is None:
        return rank if obs.valid is None else rank.masked_fill(~obs.valid, -1)
    free = ~obs.protected if obs.valid is None else obs.valid & ~obs.protected
    n = rank.shape[-1]
    at = rank.long() if obs.valid is None else rank.long().masked_fill(~obs.valid, n)
    by_age = torch.zeros(*rank.shape[:2], n + 1, dtype=torch.long, device=rank.device).scatter_(2, at, free.long())
    return (by_age.cumsum(-1) - 1).gather(2, at).masked_fill(~free, -1)

"""EMS: every head keeps its best entries, merges the next best into them where they fit, and forgets the rest
(arXiv 2412.08521, a reconstruction)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from laconic import checks
from laconic.cache.contract import CacheMethod
from laconic.cache.layer import CompressedLayer
from laconic.cache.merging import assign, gathered, merge_keys, merge_values
from laconic.cache.observe import Observation
from laconic.cache.parts.base import DensePart, Part
from laconic.cache.parts.ranked import token_positions, turned
from laconic.cache.scores import check_window, pool
from laconic.method import register
from laconic.ops import attend as ops

Row = dict[str, torch.Tensor]
"""Entries of one batch row: `keys`, `values` [Hkv, n, D] and columns [Hkv, n]."""


@register(
    "ems",
    site="cache",
    mechanism="merging",
    source="arXiv 2412.08521",
    query_aware=True,
    inferred="a reconstruction: the abstract and a feature table were read, not the method section. Components and their "
    "order are published; every formula and default is our own, and no published figure is claimed. The mean over the query "
    "heads of a group is taken before the maximum of the two scores, so that one accumulated number per entry is stored",
)
@dataclass(kw_only=True)
class EMS(CacheMethod):
    """Rank by global and local attention together; the best entries are centers, and the next best may join any of them.

    Of a budget of C entries the last `window` stay, and the ``m = C - window`` best older ones are *centers*. The next
    ``pool_factor * m`` go to the center with the most similar key direction; where no cosine exceeds `tau` they go to the
    *zero class* and are forgotten, as is the tail. Each head thus splits its own budget between merging and forgetting in
    one dense computation. Score, mean over the group, then pooled: ``S = max(S_l, S_g * sum S_l / sum S_g)``, where ``S_l``
    is the attention of the last `window` queries and ``S_g`` that of all queries that can see the entry, both means over
    queries. Merged values are means weighted by S; merged keys likewise, with direction and length averaged separately.
    While decoding, the cache grows by `window` entries and is then shortened again; a center carries the sum of its members'
    ``S_g``.

    Args:
        window: last entries that stay (32), at most half of the budget.
        kernel: width of the max pooling of scores, odd (5).
        pool_factor: merge candidates per center (4); 0 is pure eviction.
        tau: least cosine for merging (0.6); above 1 nothing is merged.
        combine: ``"max"`` or ``"sum"`` of the local and the rescaled global score.
        merge_space: ``"post_rope"``: keys as stored; ``"pre_rope"``: compared and merged with RoPE undone, then rotated to
            the center's position.
        multiplicity: a center that stands for n entries gets ``log n`` added to its logit (not published).
        sinks: first tokens into which nothing is merged (4).
    """

    window: int = 32
    kernel: int = 5
    pool_factor: int = 4
    tau: float = 0.6
    combine: Literal["max", "sum"] = "max"
    merge_space: Literal["post_rope", "pre_rope"] = "post_rope"
    multiplicity: bool = False
    sinks: int = 4
    evicts_while_decoding = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_window(self.name, self.window, self.kernel)
        checks.whole(self, "pool_factor")
        checks.whole(self, "sinks")
        checks.one_of(self, "combine", "max", "sum")
        checks.one_of(self, "merge_space", "post_rope", "pre_rope")

    @property
    def undoes_rope(self) -> bool:
        return self.merge_space == "pre_rope"

    def queries_kept(self) -> int:
        return self.window

    # -- when ------------------------------------------------------------------------------------------------------
    def columns(self, obs: Observation) -> dict[str, torch.Tensor]:
        """After a prefill pass: the attention that every entry has received, and from how many queries it could have."""
        mass = ops.attention_mass(
            obs.queries, obs.keys, obs.scale, bias=_bias(obs), softcap=obs.softcap, real=obs.step.valid
        )
        b, _, n = mass.shape
        real = torch.ones(b, obs.new, device=mass.device) if obs.step.valid is None else obs.step.valid.float()
        later = real.flip(1).cumsum(1).flip(1)
        count = torch.cat([later[:, :1].expand(-1, n - obs.new), later], 1)[:, None].expand(mass.shape).clone()
        for name, total in (("mass", mass), ("count", count)):
            if name in obs.columns:
                total[..., : -obs.new] += obs.columns[name]
        return {"mass": mass, "count": count}

    def reduce(self, layer: CompressedLayer, obs: Observation, columns: dict[str, torch.Tensor]) -> list[Part] | None:
        self._check_protected(obs)
        over = [real > target for real, target in zip(obs.real, obs.targets, strict=True)]
        return [self._compressed(obs, columns, over)] if any(over) else None

    def decoded(self, layer: CompressedLayer, obs: Observation) -> None:
        part = layer.parts[-1]
        assert isinstance(part, DensePart)
        for name in ("mass", "count"):
            if not part.has(name):  # the prompt came while the session was holding everything
                part.write({name: torch.zeros((), device=obs.keys.device)})
        columns = part.columns
        row = ops.attention_rows(obs.queries, obs.keys, obs.scale, bias=_bias(obs), softcap=obs.softcap)
        columns["mass"].add_(row[:, :, :, 0].mean(2))
        columns["count"].add_(1)
        spare = [max(1, self._recent(obs, b)) for b in range(len(obs.real))]
        over = [real >= target + w for real, target, w in zip(obs.real, obs.targets, spare, strict=True)]
        if any(over):
            self._check_protected(obs)
            layer.store([self._compressed(obs, {**columns, "index": obs.index}, over)])

    def _recent(self, obs: Observation, b: int) -> int:
        """Newest entries of row b that stay as they are."""
        left = obs.targets[b]
        if obs.protected is not None:  # protection comes first
            left -= int(obs.protected[b].sum(-1).amax())
        return min(self.window, max(0, left) // 2)

    # -- what ------------------------------------------------------------------------------------------------------
    def _compressed(self, obs: Observation, columns: dict[str, torch.Tensor], over: list[bool]) -> DensePart:
        """All rows in one part, those `over` their budget shortened to it; shorter rows begin with filler."""
        local = self._rows(obs)
        everything = {"keys": obs.keys, "values": obs.values, **columns}
        if self.multiplicity and "bias" not in columns:
            everything["bias"] = torch.zeros(obs.index.shape, device=obs.keys.device)
        everything["position"] = token_positions(obs)
        if obs.protected is not None:
            everything["protected"] = obs.protected
        done = []
        for b, shorten in enumerate(over):
            real = slice(None) if obs.valid is None else obs.valid[b, 0]
            row = {name: x[b][:, real] for name, x in everything.items() if name != "valid"}
            if shorten:
                row = self._merged(row, local[b][..., real], _run(row["count"][0], local.shape[3]), obs, b)
            done.append({name: x for name, x in row.items() if name not in ("position", "protected")})
        return _part(done)

    def _rows(self, obs: Observation) -> torch.Tensor:
        """Attention of the latest queries over all entries, [B, Hkv, G, <= window, n]."""
        queries = obs.state["queries"][:, :, -obs.keys.shape[2] :]
        return ops.attention_rows(queries, obs.keys, obs.scale, bias=_bias(obs), softcap=obs.softcap)

    def _merged(self, row: Row, local: torch.Tensor, run: int, obs: Observation, b: int) -> Row:
        """One batch row, shortened to its budget.

        Args:
            local: attention of the latest queries over its entries, [Hkv, G, w, n]; the last `run` of them belong to the
                newest `run` entries.
        """
        recent, n = self._recent(obs, b), row["keys"].shape[1]
        old, m = n - recent, obs.targets[b] - recent
        w = min(run, max(1, recent))
        score = self.score_old(local[:, :, -w:].mean((1, 2))[:, :old], (row["mass"] / row["count"].clamp(min=1))[:, :old])
        rank = score if "protected" not in row else score.masked_fill(row["protected"][:, :old], float("inf"))
        order = rank.sort(dim=-1, descending=True, stable=True).indices
        centers, moving = order[:, :m].sort(-1).values, order[:, m : m + self.pool_factor * m]

        def of(name: str, index: torch.Tensor) -> torch.Tensor:
            x = row[name]
            return x.gather(1, index.view(*index.shape, *[1] * (x.ndim - 2)).expand(*index.shape, *x.shape[2:]))

        closed = of("index", centers) < row["index"][:, :1] + self.sinks
        if "protected" in row:
            closed |= of("protected", centers)
        keys, others = of("keys", centers), of("keys", moving)
        if self.merge_space == "pre_rope":
            keys = turned(keys[None], -of("position", centers)[None], obs.rotary)[0]
            others = turned(others[None], -of("position", moving)[None], obs.rotary)[0]
        to = assign(others, keys, self.tau, closed)
        weights = score.gather(1, centers), score.gather(1, moving)
        merged = {"keys": merge_keys(keys, others, to, *weights)}
        if self.merge_space == "pre_rope":
            merged["keys"] = turned(merged["keys"][None], of("position", centers)[None], obs.rotary)[0]
        merged["values"] = merge_values(of("values", centers), of("values", moving), to, *weights)
        gives = of("mass", moving) / of("count", moving).clamp(min=1)
        merged["mass"] = of("mass", centers) + of("count", centers) * gathered(gives[..., None], to, m)[..., 0]
        if "bias" in row:
            stands = of("bias", centers).exp() + gathered(of("bias", moving).exp()[..., None], to, m)[..., 0]
            merged["bias"] = stands.log()
        alone = gathered(torch.ones_like(gives)[..., None], to, m)[..., 0] == 0
        out = {}
        for name, x in row.items():
            center = of(name, centers)
            if name in merged:  # centers that absorb nothing stay bit for bit
                own = alone.view(*alone.shape, *[1] * (center.ndim - 2))
                center = torch.where(own, center, merged[name].to(center.dtype))
            out[name] = torch.cat([center, x[:, old:]], 1)
        return out

    def score_old(self, local: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """S of the entries before the window, from their local and global means, [Hkv, old] each, pooled."""
        whole = whole * (local.sum(-1, keepdim=True) / whole.sum(-1, keepdim=True).clamp(min=torch.finfo(whole.dtype).tiny))
        return pool(torch.maximum(local, whole) if self.combine == "max" else local + whole, self.kernel, "max")


def _bias(obs: Observation) -> torch.Tensor | None:
    """Additive logits of all entries [B, Hkv, n]: padding, and what merged entries stand for."""
    stands = obs.columns.get("bias")
    if stands is None:
        return obs.bias
    stands = torch.nn.functional.pad(stands, (0, obs.keys.shape[2] - stands.shape[-1]))
    return stands if obs.bias is None else stands + obs.bias


def _run(count: torch.Tensor, most: int) -> int:
    """How many of the newest entries, at most `most`, came with the latest queries without a gap: the k-th from the end was
    counted by k queries. (Tokens that came while a session was holding were counted by no query.) `count` [n] of one
    head."""
    newest = count.flip(0)[:most]
    return max(1, int((newest == torch.arange(1, len(newest) + 1, device=count.device)).int().cumprod(0).sum()))


def _part(rows: list[Row]) -> DensePart:
    """One part of batch rows of different lengths, filler first, so every row ends with its newest entries."""
    most = max(row["keys"].shape[1] for row in rows)
    short = [most - row["keys"].shape[1] for row in rows]

    def stacked(name: str) -> torch.Tensor:
        columns = [row[name] for row in rows]
        if any(short):
            columns = [
                torch.cat([x.new_zeros(x.shape[0], s, *x.shape[2:]), x], 1) for x, s in zip(columns, short, strict=True)
            ]
        return torch.stack(columns)

    columns = {name: stacked(name) for name in rows[0] if name not in ("keys", "values")}
    if any(short):
        device = columns["index"].device
        valid = torch.arange(most, device=device) >= torch.tensor(short, device=device)[:, None]
        columns["valid"] = valid[:, None].expand(columns["index"].shape)
    return DensePart(stacked("keys"), stacked("values"), columns)

"""GEAR: a quantised cache, a low-rank correction of its error, and separate outliers (arXiv 2403.05527)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from laconic import checks
from laconic.cache.parts.base import DensePart, Part
from laconic.cache.parts.quantised import Matrix, QuantisedPart, shed, without_filler
from laconic.cache.quantiser import HeadSizes, Quantiser, check_group
from laconic.method import register
from laconic.ops.attend import attend
from laconic.ops.compiled import ROWS
from laconic.ops.corrected import Corrected, Settings, approximate
from laconic.ops.fused import attend_quantised
from laconic.ops.quantise import TILE


class GearPart(QuantisedPart):
    """Blocks of entries as D + L + S, all of one size and rank. L and S are never built: they add to logits and outputs."""

    kind = "gear"
    matrix: ClassVar[type[Matrix]] = Corrected

    def attend(self, q: torch.Tensor, scale: float, softcap: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        """``q . k = q . D + (q P) Q^T + q . S``, and the same for the weights and values -> output, lse."""
        keys, values = self.keys, self.values
        assert isinstance(keys, Corrected) and isinstance(values, Corrected)
        (b, h, t, _), kv, bias = q.shape, self.heads[1], self.bias()
        if h // kv * t > ROWS:  # many queries: restoring the layer once costs less than logits for all of them
            k, v, _ = self.padded()
            return attend(q, k, v, scale, bias=bias, softcap=softcap)
        rows = q.float().reshape(b, kv, h // kv * t, -1)
        logits = torch.empty(*rows.shape[:3], self.length, device=q.device)
        extra = keys.logits(rows * scale)
        out, lse = attend_quantised(q, keys.bulk, values.bulk, scale, bias=bias, extra=extra, logits=logits, softcap=softcap)
        per_row = lse.view(b, kv, -1, 1)
        weights = torch.exp(logits - per_row.masked_fill(per_row.isneginf(), 0))
        return out + values.product(weights).view(out.shape).to(out.dtype), lse

    def takes(self, keys: Corrected, values: Corrected) -> bool:
        """Whether further blocks are of the same kind as the ones stored here."""
        mine, own = self.keys, self.values
        assert isinstance(mine, Corrected) and isinstance(own, Corrected)
        return (mine.kind, own.kind) == (keys.kind, values.kind)


@register(
    "gear",
    site="cache",
    mechanism="quantisation, low-rank error, outliers",
    source="arXiv 2403.05527",
    query_aware=False,
    inferred="what a block adds at outliers (`mask_outliers`); ranks when a prompt has exactly one block",
)
@dataclass(kw_only=True)
class GEAR(Quantiser):
    """Quantise the cache, approximate the error by a few directions per KV head, and keep the largest entries separately.

    X = D + L + S for keys (along tokens) and values (along channels): S takes the `outliers`, D is the quantised rest with
    the mean in their places, L the best `rank` directions of the remaining error. The first ``n - n mod buffer`` tokens of a
    prompt are one block, every `buffer` decoded tokens are another; the newest wait unquantised. Blocks are never touched
    again.

    Args:
        bits: 2, 3, 4 or 8; 16 leaves the cache as it is. Default: what `keep`, `tokens` or `bytes` allow; without them 2,
            and 4 with ``base="kcvt"``, as published.
        base: "kivi" (keys per channel in groups of tokens, values per token in groups of channels) or "kcvt" (one group for
            all tokens of a block, one for all channels of all heads).
        group: of base "kivi", a multiple of 8 (64).
        rank, decode_rank: directions of a prompt's block (4) and of a decoded block (2). 0 leaves L out.
        outliers: share of every vector that is kept exactly (0.02). 0 leaves S out.
        buffer: tokens of a decoded block, a multiple of `group`, or of 8 (64).
        loops, seed: rounds and start of the power iteration (3, 0).
        mask_outliers: leave L out where S is, so that outliers are exact. The paper leaves this open; its code does not do
            it.

    Raises:
        BudgetError: both `bits` and a budget, or a budget that even 2 bits exceed.
    """

    base: Literal["kivi", "kcvt"] = "kivi"
    group: int = 64
    rank: int = 4
    decode_rank: int = 2
    outliers: float = 0.02
    buffer: int = 64
    loops: int = 3
    seed: int = 0
    mask_outliers: bool = False

    unpacked_by: ClassVar[str] = "buffer= (and group=)"
    savings: ClassVar[str] = "group=, rank=, decode_rank= or outliers="

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, "base", "kivi", "kcvt")
        check_group(self.name, self.group)
        unit = self.group if self.base == "kivi" else 8
        if self.buffer < unit or self.buffer % unit:
            raise ValueError(f"gear: buffer={self.buffer}: choose a multiple of {unit} with base={self.base!r}.")
        checks.between(self, "outliers")
        for name in ("rank", "decode_rank"):
            checks.between(self, name, 0, self.buffer)
        checks.at_least(self, "loops", 1)

    def usual_bits(self, heads: HeadSizes) -> int:
        return 2 if self.base == "kivi" else 4

    def bits_stored(self, bits: int, heads: HeadSizes) -> float:
        if self.base == "kivi":
            scales = (32 / self.group + 32 / min(self.group, heads.size)) / 2
        else:
            scales = (32 / self.buffer + 32 / (heads.kv * heads.size)) / 2
        factors = 16 * max(self.rank, self.decode_rank) * (1 / heads.size + 1 / self.buffer)
        return bits + scales + self.outliers * (heads.item + 16) + factors

    def check(self, heads: HeadSizes) -> None:
        if heads.size % 8 or (self.base == "kivi" and heads.size % min(self.group, heads.size)):
            raise ValueError(f"gear: group={self.group} does not divide the head size {heads.size}; choose one that does.")
        if max(self.rank, self.decode_rank) > heads.size:
            raise ValueError(
                f"gear: rank={self.rank}, decode_rank={self.decode_rank}: the head size allows {heads.size} at most."
            )

    def store(self, parts: list[Part], bits: int, prefill: bool) -> None:
        dense = parts[-1]
        assert isinstance(dense, DensePart)
        n = dense.length // self.buffer * self.buffer
        if n == 0:
            return
        dtype = dense.keys.dtype
        keys, values, columns = shed(parts, n)
        settings = self._settings(bits, prefill)
        packed = (
            approximate(without_filler(keys, columns, settings.group or n), "channel", settings),
            approximate(without_filler(values, columns, settings.group or n), "token", settings),
        )
        last = parts[-2] if len(parts) > 1 else None
        if isinstance(last, GearPart) and last.takes(*packed):
            last.extend_keys(packed[0])
            last.extend(packed[1], columns)
        else:
            parts.insert(-1, GearPart(*packed, columns, dtype))

    def _settings(self, bits: int, prefill: bool) -> Settings:
        group = self.group if self.base == "kivi" else None
        return Settings(
            bits,
            group,
            math.gcd(self.buffer if group is None else group, TILE),
            outliers=self.outliers,
            rank=self.rank if prefill else self.decode_rank,
            loops=self.loops,
            seed=self.seed,
            masked=self.mask_outliers,
        )

"""KIVI: keys quantised per channel, values per token, the newest tokens unquantised (arXiv 2402.02750)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from laconic.cache.parts.base import DensePart, Part
from laconic.cache.parts.quantised import QuantisedPart, numbered, shed, without_filler
from laconic.cache.quantiser import HeadSizes, Quantiser, check_group
from laconic.method import Reuse, register
from laconic.ops.quantise import TILE, quantise_keys, quantise_values


@register(
    "kivi",
    site="cache",
    mechanism="quantisation",
    source="arXiv 2402.02750",
    query_aware=False,
    inferred="the value residual moves by tiles of at most 32 tokens, not by single tokens",
)
@dataclass(kw_only=True)
class KIVI(Quantiser):
    """Store keys in few bits per channel and values in few bits per token; the latest tokens stay as they are.

    Keys have outlier channels, so a group is `group` consecutive tokens of one channel; values have none, so a group is
    `group` consecutive channels of one token. Of N tokens the first ``N - N mod residual`` keys are packed, `residual` at a
    time, and the first ``N - residual`` values, rounded down to whole tiles of ``gcd(group, 32)`` tokens.

    Args:
        bits: 2, 3, 4 or 8. Default: what `keep`, `tokens` or `bytes` allow; without them 2 bits for multi-head models and 4
            where query heads share keys, as the authors recommend.
        group: numbers that share a scale, a multiple of 8 (32).
        residual: newest tokens that stay unquantised, a multiple of `group` (128).

    Raises:
        BudgetError: both `bits` and a budget, or a budget that even 2 bits exceed.
    """

    group: int = 32
    residual: int = 128

    reuse: ClassVar[Reuse] = "exact"
    unpacked_by: ClassVar[str] = "residual= (and group=)"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_group(self.name, self.group)
        if self.residual < self.group or self.residual % self.group:
            raise ValueError(f"kivi: residual={self.residual}: choose a multiple of group={self.group}.")
        self._tile = math.gcd(self.group, TILE)

    def usual_bits(self, heads: HeadSizes) -> int:
        return 2 if heads.queries == heads.kv else 4

    def bits_stored(self, bits: int, heads: HeadSizes) -> float:
        return bits + (32 / self.group + 32 / min(self.group, heads.size)) / 2

    def check(self, heads: HeadSizes) -> None:
        if heads.size % min(self.group, heads.size) or heads.size % 8:
            raise ValueError(f"kivi: group={self.group} does not divide the head size {heads.size}; choose one that does.")

    def store(self, parts: list[Part], bits: int, prefill: bool) -> None:
        dense = parts[-1]
        assert isinstance(dense, DensePart)
        packed = parts[0] if isinstance(parts[0], QuantisedPart) else None
        ahead = packed.ahead if packed else 0
        keys = (dense.length - ahead) // self.residual * self.residual
        if keys:
            numbered(parts)
            own = slice(ahead, ahead + keys)
            columns = {name: column[:, :, own] for name, column in dense.columns.items()}
            whole = without_filler(dense.keys[:, :, own], columns, self.group)
            block = quantise_keys(whole, bits, self.group, tile=self._tile)
            dense.keys[:, :, own] = block.dequantise().to(dense.keys.dtype)  # their values wait; the keys count as packed
            if packed is None:
                packed = QuantisedPart(block, None, {}, dense.keys.dtype)
                parts.insert(0, packed)
            else:
                packed.extend_keys(block)
        values = (dense.length - self.residual) // self._tile * self._tile
        if values > 0:
            assert packed is not None
            _, whole, columns = shed(parts, values)
            packed.extend(quantise_values(whole, bits, self.group, tile=self._tile), columns)

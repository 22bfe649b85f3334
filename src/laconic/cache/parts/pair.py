"""The part of a merged pair of layers: one direction per token for both layers, a length per layer, and a few exact rows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from laconic.cache.parts.base import Part
from laconic.ops.growing import Growing
from laconic.ops.quantise import Quantised, quantise_keys, quantise_values

if TYPE_CHECKING:
    from laconic.cache.layer import CompressedLayer

_LOGITS = 1 << 22  # numbers in one block of logits
_COLUMNS = ("index", "valid")
Tensors = dict[str, torch.Tensor]


@dataclass
class Merged:
    """Keys, or values, of m tokens in the two layers of a pair, merged.

    Attributes:
        directions: unit vectors that both layers share, [B, Hkv, m, D].
        norms: lengths in the first and in the second layer, [B, Hkv, m] each.
        places: tokens that are also stored exactly, counted from the first of the m, [B, r], each listed once.
        exact: their vectors in the first and in the second layer, [B, Hkv, r, D] each.
    """

    directions: torch.Tensor
    norms: tuple[torch.Tensor, torch.Tensor]
    places: torch.Tensor
    exact: tuple[torch.Tensor, torch.Tensor]


class PairPart(Part):
    """One layer's side of a pair. The first layer's part holds what both share; the second's looks it up there.

    ``k_j = |k_j| e_j`` and the same for values, so attention needs no restored vector: ``q . k_j = |k_j| (q . e_j)``, and
    the weights of the values are multiplied by their lengths. What exact rows contribute is computed from the rows.

    Attributes:
        own: of this layer, for ``x`` in keys and values: `x.norms` [B, Hkv, n], `x.exact` [B, Hkv, r, D].
        shared: of both layers: `x.places` int32 [B, 1, r], `x.directions` [B, Hkv, n, D] if they are not packed, and the
            columns `index` and `valid` [B, 1, n], the same in all heads; None in the second layer's part.
        packed: directions in a few bits, by ``x``.
        second_of: the second layer of the pair, if this is its part.
    """

    kind = "pair"

    def __init__(self, own: Growing, shared: Growing | None, packed: dict[str, Quantised]):
        self.own, self.shared, self.packed = own, shared, packed
        self.second_of: CompressedLayer | None = None

    @property
    def first(self) -> PairPart:
        """The part that holds what both share: of the neighbour's pairs the one in the same place. Looked up each time,
        because the neighbour's parts may have been replaced."""
        if self.shared is not None:
            return self
        layer = self.second_of
        assert layer is not None, "a loaded pair must be linked to its layer"
        return pairs(list(layer.cache.compressed())[layer.number - 1])[pairs(layer).index(self)]

    def link(self, layer: CompressedLayer) -> None:
        if self.shared is None:
            self.second_of = layer

    def _both(self) -> Growing:
        shared = self.first.shared
        assert shared is not None
        return shared

    def directions(self, x: str) -> torch.Tensor:
        """Unit vectors of ``x`` (keys or values), [B, Hkv, n, D]; a view unless they are packed."""
        packed = self.first.packed
        return packed[x].dequantise().to(self.own[f"{x}.norms"].dtype) if x in packed else self._both()[f"{x}.directions"]

    def places(self, x: str) -> torch.Tensor:
        """Entries of ``x`` that are stored exactly, [B, 1, r]."""
        return self._both()[f"{x}.places"].long()

    # -- sizes -----------------------------------------------------------------------------------------------------
    @property
    def length(self) -> int:  # type: ignore[override]
        return self.own["keys.norms"].shape[2]

    @property
    def lengths(self) -> torch.Tensor:
        """Real entries of every head, [B, Hkv]."""
        shape, valid = self.own["keys.norms"].shape[:2], self._both().get("valid")
        return torch.full(shape, self.length) if valid is None else valid.sum(-1).expand(shape)

    @property
    def nbytes(self) -> int:
        """Lengths and exact rows; in the first layer directions and the list of exact rows too: a pair counts once."""
        shared = 0 if self.shared is None else sum(x.nbytes for name, x in self.shared.items() if name not in _COLUMNS)
        return self.own.nbytes + shared + sum(packed.nbytes for packed in self.packed.values())

    def buffers(self) -> Iterator[torch.Tensor]:
        for growing in (self.own, self.shared):
            yield from () if growing is None else growing.buffers()
        for packed in self.packed.values():
            yield from packed.buffers.values()

    def has(self, name: str) -> bool:
        return name in _COLUMNS and name in self._both()

    # -- use -------------------------------------------------------------------------------------------------------
    def padded(self) -> tuple[torch.Tensor, torch.Tensor, Tensors]:
        """keys [B, Hkv, n, D], values and columns, restored: a copy."""
        shared = self._both()
        columns = {x: shared[x].expand(self.own["keys.norms"].shape) for x in _COLUMNS if x in shared}
        return self._restored("keys"), self._restored("values"), columns

    def _restored(self, x: str) -> torch.Tensor:
        exact = self.own[f"{x}.exact"]
        restored = self.directions(x) * self.own[f"{x}.norms"][..., None]
        return restored.scatter_(2, self.places(x)[..., None].expand_as(exact), exact)

    def attend(self, q: torch.Tensor, scale: float, softcap: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        """q [B, H, T, D] sees every stored entry -> output [B, H, T, Dv], lse [B, H, T]."""
        (b, h, t, d), (hkv, n) = q.shape, self.own["keys.norms"].shape[1:]
        keys, values, valid = self.directions("keys"), self.directions("values"), self._both().get("valid")
        outs, lses = [], []
        rows = (q * scale).reshape(b, hkv, h // hkv * t, d)
        for block in rows.split(max(1, _LOGITS // (b * hkv * n)), 2):
            logits = torch.matmul(block, keys.transpose(-1, -2)).float().mul_(self.own["keys.norms"][:, :, None])
            exact = torch.matmul(block, self.own["keys.exact"].transpose(-1, -2)).float()
            logits.scatter_(3, self.places("keys")[:, :, None].expand_as(exact), exact)
            if softcap is not None:
                logits = softcap * torch.tanh(logits / softcap)
            if valid is not None:
                logits = logits.masked_fill(~valid[:, :, None], float("-inf"))
            lse = logits.logsumexp(-1)
            weights = torch.exp(logits - lse.masked_fill(torch.isneginf(lse), 0)[..., None])
            places = self.places("values")[:, :, None].expand(b, hkv, block.shape[2], -1)
            few = weights.gather(3, places).to(q.dtype)
            weights = weights.scatter_(3, places, 0.0).mul_(self.own["values.norms"][:, :, None]).to(q.dtype)
            outs.append(torch.matmul(weights, values) + torch.matmul(few, self.own["values.exact"]))
            lses.append(lse)
        return torch.cat(outs, 2).view(b, h, t, -1), torch.cat(lses, 2).view(b, h, t)

    def map(self, f: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.own = self.own.mapped(f)
        self.shared = None if self.shared is None else self.shared.mapped(f)
        self.packed = {x: copy.copy(packed) for x, packed in self.packed.items()}  # those of a fork stay as they are
        for packed in self.packed.values():
            packed.map(f)

    # -- saving ----------------------------------------------------------------------------------------------------
    def tensors(self) -> Tensors:
        named = {f"own.{name}": x for name, x in self.own.items()}
        if self.shared is not None:
            named |= {f"shared.{name}": x for name, x in self.shared.items()}
        named |= {f"packed.{x}.{name}": y for x, packed in self.packed.items() for name, y in packed.tensors().items()}
        return {name: x.contiguous() for name, x in named.items()}

    @classmethod
    def from_tensors(cls, tensors: Tensors) -> PairPart:
        def under(prefix: str) -> Tensors:
            return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}

        shared = under("shared.")
        packed = {x: Quantised.from_tensors(under(f"packed.{x}.")) for x in ("keys", "values") if under(f"packed.{x}.")}
        return cls(Growing(under("own.")), Growing(shared) if shared else None, packed)


def pairs(layer: CompressedLayer, *, frozen: bool = True) -> list[PairPart]:
    """The pairs among the parts of a layer, in order; `frozen`: those that forks share included."""
    return [part for part in layer.parts if isinstance(part, PairPart) and (frozen or not part.frozen)]


def pair(keys: Merged, values: Merged, columns: Tensors, bits: int | None) -> tuple[PairPart, PairPart]:
    """The parts of a new pair of layers; the second must be linked to its layer.

    Args:
        columns: `index` and, where some are not real, `valid` [B, 1, m].
        bits: of the directions; None stores them as they are.
    """
    both = {"keys": keys, "values": values}
    own = [{name: x for merged in both for name, x in _own(merged, both[merged], i).items()} for i in (0, 1)]
    shared = {f"{x}.places": merged.places[:, None].int() for x, merged in both.items()} | columns
    packed = {}
    if bits is None:
        shared |= {f"{x}.directions": merged.directions for x, merged in both.items()}
    else:
        packed = {"keys": quantise_keys(keys.directions, bits), "values": quantise_values(values.directions, bits)}
    return PairPart(Growing(own[0]), Growing(shared), packed), PairPart(Growing(own[1]), None, {})


def extend(first: PairPart, second: PairPart, keys: Merged, values: Merged, columns: Tensors) -> None:
    """Add merged tokens after those of a pair; arguments as for `pair`."""
    shared, before = first.shared, first.length
    assert shared is not None
    for x, merged, quantise in (("keys", keys, quantise_keys), ("values", values, quantise_values)):
        shared.append({f"{x}.places": merged.places[:, None].int() + before})
        if x in first.packed:
            first.packed[x].append(quantise(merged.directions, first.packed[x].bits))
        else:
            shared.append({f"{x}.directions": merged.directions})
        for i, part in enumerate((first, second)):
            part.own.append(_own(x, merged, i))
    if "valid" in columns and "valid" not in shared:
        shared.add("valid", torch.ones_like(shared["index"], dtype=torch.bool))
    real = torch.ones_like(columns["index"], dtype=torch.bool)
    shared.append({name: columns.get(name, real) for name in _COLUMNS if name in shared})


def _own(x: str, merged: Merged, i: int) -> Tensors:
    return {f"{x}.norms": merged.norms[i], f"{x}.exact": merged.exact[i]}

"""A matrix as quantised bulk + low rank + sparse outliers, X = D + L + S (arXiv 2403.05527).

L and S are never built for attention: `logits` gives what they add to ``q . k`` for keys, `product` what they add to the
weighted sum of values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from laconic.ops.growing import Growing
from laconic.ops.lowrank import power_iteration
from laconic.ops.quantise import Per, Quantised, quantise_keys, quantise_values

_SHORT = 1 << 16  # positions below this are kept in 16 bits


@dataclass(frozen=True)
class Settings:
    """Settings of a block's approximation.

    Attributes:
        bits, group, tile: of the quantised bulk, see `ops.quantise`.
        outliers: share s of every vector that is kept exactly: the ``int(s / 2 * n)`` smallest entries and as many of the
            largest.
        rank: directions of the low-rank term per KV head; `loops`, `seed`: of the power iteration.
        masked: leave the low-rank term out at outliers, so that they are exact.
    """

    bits: int
    group: int | None = 64
    tile: int = 32
    outliers: float = 0.0
    rank: int = 0
    loops: int = 3
    seed: int = 0
    masked: bool = False


@dataclass
class Corrected:
    """The keys (`per="channel"`) or values (`per="token"`) of one layer in blocks of `block` tokens; it grows by blocks.

    Attributes:
        bulk: the quantised matrix D, [B, Hkv, n, d].
        terms: P float16 [B, Hkv, blocks, d, r] and Q float16 [B, Hkv, n, r], where L = Q P^T in every block; the outliers'
            positions `at`, in 16 bits where they suffice, and their residual ``S = X - D`` in X's dtype: for keys [B, Hkv,
            blocks, d, 2k] (which of the block's tokens), for values [B, 1, n, 2k] (which of the Hkv * d channels).
    """

    bulk: Quantised
    block: int
    terms: Growing

    @property
    def length(self) -> int:
        """Tokens stored."""
        return self.bulk.length

    @property
    def kind(self) -> tuple[object, ...]:
        """What two blocks must share to be stored together."""
        bulk = self.bulk
        sizes = {name: tuple(self.terms[name].shape[3:]) for name in sorted(self.terms)}
        return (self.block, bulk.bits, bulk.per, bulk.tile, bulk.width, tuple(sizes.items()))

    @property
    def nbytes(self) -> int:
        return self.bulk.nbytes + self.terms.nbytes

    def dequantise(self) -> torch.Tensor:
        """D + L + S, float32 [B, Hkv, n, d]."""
        x = self.bulk.dequantise()
        if "P" in self.terms:
            p, q = self._factors()
            x += (q @ p.transpose(-1, -2)).view(x.shape)
        if "at" in self.terms:
            at, s = self._outliers()
            blocks = x.unflatten(2, (-1, self.block)) if self.bulk.per == "channel" else x
            x = _matrix(_vectors(blocks, self.bulk.per).scatter_add(-1, at, s), self.bulk.per, blocks.shape).view(x.shape)
        return x

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """Keys: query rows float32 [B, Hkv, R, d] -> what L and S add to their products with the keys, [B, Hkv, R, n]."""
        b, h, r = rows.shape[:3]
        out = rows.new_zeros(b, h, r, self.length)
        if "P" in self.terms:
            p, q = self._factors()
            own = (rows[:, :, None] @ p) @ q.transpose(-1, -2)  # [B, Hkv, blocks, R, block]
            out += own.transpose(2, 3).flatten(3)
        if "at" in self.terms:
            at, s = self._outliers()
            first = torch.arange(0, self.length, self.block, device=at.device)
            at = (at + first[:, None, None]).view(b, h, 1, -1).expand(b, h, r, -1)
            out.scatter_add_(-1, at, (rows[:, :, :, None, :, None] * s[:, :, None]).flatten(3))
        return out

    def product(self, weights: torch.Tensor) -> torch.Tensor:
        """Values: attention weights float32 [B, Hkv, R, n] -> what L and S add to the output, [B, Hkv, R, d]."""
        b, h, r, n = weights.shape
        d = self.bulk.head_dim
        out = weights.new_zeros(b, h, r, d)
        if "P" in self.terms:
            p, q = self._factors()
            own = weights.unflatten(3, (-1, self.block)).transpose(2, 3) @ q  # [B, Hkv, blocks, R, rank]
            out += (own @ p.transpose(-1, -2)).sum(2)
        if "at" in self.terms:
            at, s = self._outliers()  # [B, 1, n, 2k]
            own = (at // d * n + torch.arange(n, device=at.device)[:, None]).flatten(2)  # the weight of its head and token
            mass = weights.transpose(1, 2).flatten(2).gather(-1, own.expand(b, r, -1)) * s.flatten(2)
            flat = weights.new_zeros(b, r, h * d).scatter_add_(-1, at.flatten(2).expand(b, r, -1), mass)
            out += flat.view(b, r, h, d).transpose(1, 2)
        return out

    def append(self, more: Corrected) -> None:
        """Append further blocks of the same kind; earlier ones are not touched."""
        if more.kind != self.kind:
            raise ValueError(f"append: blocks of another kind, {more.kind} onto {self.kind}.")
        self.bulk.append(more.bulk)
        self.terms.append(more.terms)

    def map(self, f: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Apply `f` to every tensor (batch first)."""
        self.bulk.map(f)
        self.terms = self.terms.mapped(f)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What has to be saved, without spare room."""
        terms = {f"term.{name}": x.contiguous() for name, x in self.terms.items()}
        return {"block": torch.tensor(self.block), **terms, **self.bulk.tensors()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> Corrected:
        terms = {name.removeprefix("term."): x for name, x in tensors.items() if name.startswith("term.")}
        bulk = {name: x for name, x in tensors.items() if name != "block" and not name.startswith("term.")}
        return cls(Quantised.from_tensors(bulk), int(tensors["block"]), Growing(terms))

    def _factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """P [B, Hkv, blocks, d, r] and Q [B, Hkv, blocks, block, r], float32."""
        return self.terms["P"].float(), self.terms["Q"].float().unflatten(2, (-1, self.block))

    def _outliers(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions (int64) and S (float32)."""
        at = self.terms["at"]
        return at.long() & (_SHORT - 1) if at.dtype == torch.int16 else at.long(), self.terms["S"].float()


def approximate(x: torch.Tensor, per: Per, settings: Settings) -> Corrected:
    """One block x [B, Hkv, n, d] of keys (`per="channel"`) or values (`per="token"`) as D + L + S.

    Raises:
        ValueError: the block is not divisible into the groups, or its numbers exceed what float16 scales and factors can
            hold.
    """
    exact = _vectors(x.float(), per)
    k = int(settings.outliers / 2 * exact.shape[-1] + 1e-6)
    order = exact.argsort(dim=-1, stable=True) if k else exact.long()
    marked = torch.cat([order[..., :k], order[..., order.shape[-1] - k :]], -1)
    bulk_of = exact.scatter(-1, marked, exact.mean(-1, keepdim=True).expand(marked.shape))
    quantise = quantise_keys if per == "channel" else quantise_values
    bulk = quantise(_matrix(bulk_of, per, x.shape), settings.bits, settings.group, tile=settings.tile)
    near = bulk.dequantise()
    sparse = (exact - _vectors(near, per)).gather(-1, marked)
    terms: dict[str, torch.Tensor] = {}
    if settings.rank:
        error = _matrix((exact - _vectors(near, per)).scatter(-1, marked, 0.0), per, x.shape)
        p, q = (
            f.half().contiguous() for f in power_iteration(error, settings.rank, loops=settings.loops, seed=settings.seed)
        )
        if not bool(p.isfinite().all() & q.isfinite().all()):
            raise ValueError("x: the low-rank factors exceed float16's limit of 65504; use rank=0.")
        terms |= {"P": p[:, :, None], "Q": q}
        if settings.masked and k:
            sparse -= _vectors(q.float() @ p.float().transpose(-1, -2), per).gather(-1, marked)
    if k:
        at = marked.to(torch.int16 if exact.shape[-1] <= _SHORT else torch.int32)
        at, sparse = (y[:, :, None] if per == "channel" else y for y in (at, sparse.to(x.dtype)))
        terms |= {"at": at.contiguous(), "S": sparse.contiguous()}
    return Corrected(bulk, x.shape[2], Growing(terms))


def _vectors(x: torch.Tensor, per: Per) -> torch.Tensor:
    """The vectors that share a scale, along the last dimension: x [B, Hkv, ..., n, d] -> a channel's tokens
    [B, Hkv, ..., d, n], or a token's channels of all heads [B, 1, n, Hkv * d]."""
    return x.transpose(-1, -2) if per == "channel" else x.transpose(1, 2).flatten(2)[:, None]


def _matrix(vectors: torch.Tensor, per: Per, shape: torch.Size) -> torch.Tensor:
    """The inverse of `_vectors`, for a matrix of this shape."""
    if per == "channel":
        return vectors.transpose(-1, -2).contiguous()
    b, h, n, d = shape
    return vectors.view(b, n, h, d).transpose(1, 2).contiguous()

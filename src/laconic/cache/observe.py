"""What a method may look at after a layer's attention: queries, keys, values, and attention weights computed once for
all."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from laconic.ops import attend as ops
from laconic.step import Step

if TYPE_CHECKING:
    from laconic.cache.hidden import Hidden

T = TypeVar("T")
Rotary = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass
class Observation:
    """One layer, right after its attention. Shapes: H query heads, Hkv KV heads, G = H / Hkv, n entries, T new ones.

    Attributes:
        layer: index among the compressed layers, from 0; `layers` of them.
        decoder_layer: its index among the `depth` layers of the model.
        queries: queries of this pass, RoPE and q-norm applied, [B, H, T, D].
        keys, values: all entries, stored ones first, then the T new ones, [B, Hkv, n, D].
        index: token index of every entry, [B, Hkv, n].
        valid: False at padding and filler, [B, Hkv, n]; None when all entries are real.
        columns: accumulated columns of the entries stored before this pass (see `parts.FILL`), [B, Hkv, n - T]; while
            decoding, of all entries.
        state: what the method remembers about this layer besides its entries, [B, ...] each; methods may write to it.
        pseudo: queries [B, H, P, D] and keys [B, Hkv, P, D] of pseudo tokens that ran after this pass (see
            `laconic.cache.hooks.PseudoTokens`); None when there were none.
        pseudo_lse: log-sum-exp of each pseudo query over all that it attends, itself included, fp32 [B, H, P].
        hidden: what the layer reads in this pass, for methods that name `laconic.cache.hidden.HiddenSeam`; None for others.
        protected: entries that no method may remove, [B, Hkv, n]; None when nothing is protected.
        real: real entries of every batch row, one int each.
        targets: entries that may stay in every batch row by the method's budget, one int each.
        scale, softcap: of the attention.
        rotary: positions [B, m] -> (cos, sin) [B, m, D_rot] of this layer; raises if the model's RoPE is not the half-split
            kind.
    """

    layer: int
    layers: int
    decoder_layer: int
    depth: int
    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    index: torch.Tensor
    valid: torch.Tensor | None
    columns: dict[str, torch.Tensor]
    protected: torch.Tensor | None
    real: list[int]
    targets: list[int]
    scale: float
    softcap: float | None
    step: Step
    rotary: Rotary
    state: dict[str, torch.Tensor] = field(default_factory=dict)
    pseudo: tuple[torch.Tensor, torch.Tensor] | None = None
    pseudo_lse: torch.Tensor | None = None
    hidden: Hidden | None = None
    _known: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.queries.shape[1] // self.keys.shape[1]

    @property
    def new(self) -> int:
        """Entries added by this pass."""
        return self.queries.shape[2]

    @cached_property
    def bias(self) -> torch.Tensor | None:
        """Additive logits [B, Hkv, n] that hide padding; None when every entry is real."""
        if self.valid is None:
            return None
        return torch.zeros(self.valid.shape, device=self.valid.device).masked_fill_(~self.valid, float("-inf"))

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` returns, computed on the first call with `key` and returned again on all later ones."""
        if key not in self._known:
            self._known[key] = compute()
        known: T = self._known[key]
        return known

    def window(self, w: int) -> torch.Tensor:
        """Attention of the last ``min(w, T)`` queries over all n entries, fp32 softmax rows [B, Hkv, G, w, n]."""
        w = min(w, self.new)
        return self.once(("window", w), lambda: self._window(w))

    def _window(self, w: int) -> torch.Tensor:
        start = self.new - w
        rows = ops.attention_rows(self.queries[:, :, start:], self.keys, self.scale, bias=self.bias, softcap=self.softcap)
        if self.step.valid is not None:  # a row shorter than the window: its padding must not vote
            rows = rows.masked_fill(~self.step.valid[:, None, None, start:, None], 0.0)
        return rows

    def last(self) -> torch.Tensor:
        """Attention of the last query, [B, Hkv, G, n]."""
        return self.window(1)[:, :, :, 0]

    def mass(self) -> torch.Tensor:
        """Attention that every entry has received so far, summed over queries, mean over the group, fp32 [B, Hkv, n].

        What it received in earlier passes is taken from the column `mass`, so sums over chunks and decoded tokens are right.
        """
        return self.once("mass", self._mass)

    def _mass(self) -> torch.Tensor:
        mass = ops.attention_mass(
            self.queries, self.keys, self.scale, bias=self.bias, softcap=self.softcap, real=self.step.valid
        )
        if "mass" in self.columns:
            mass[..., : self.columns["mass"].shape[-1]] += self.columns["mass"]
        return mass

    def plain_queries(self) -> torch.Tensor:
        """Queries of this pass before RoPE, [B, H, T, D]; q-norm stays applied."""
        return self.once("plain", lambda: torch.cat(list(self.plain_blocks(self.new)), 2))

    def plain_blocks(self, size: int = 1024) -> Iterator[torch.Tensor]:
        """The same in blocks of `size` queries, [B, H, size, D]: enough for statistics, and a block fits the CPU's
        caches."""
        cos, sin = self.rotary(self.step.position_ids)
        # a rotation times s is undone by its inverse over s^2 (cos and sin carry the attention factor s of YaRN)
        factor = cos[..., :1, :1] ** 2 + sin[..., :1, :1] ** 2
        cos, sin = cos / factor, -sin / factor
        for start in range(0, self.new, size):
            block = slice(start, start + size)
            yield rotate(self.queries[:, :, block], cos[:, block], sin[:, block])


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x [B, H, n, D], cos/sin [B or 1, n, D_rot] -> x with its first D_rot channels rotated (half-split RoPE)."""
    rot = cos.shape[-1]
    cos, sin, half = cos[:, None], sin[:, None], rot // 2
    turned = x[..., :rot] * cos
    turned[..., :half] -= x[..., half:rot] * sin[..., :half]
    turned[..., half:] += x[..., :half] * sin[..., half:]
    return turned if rot == x.shape[-1] else torch.cat([turned, x[..., rot:]], -1)


def protected_among(protected: torch.Tensor, index: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    """Which entries no method may remove, [B, Hkv, n].

    Args:
        protected: tokens of the prompt, [B, known]. `index`: token numbers of the entries; `valid`: as in `Observation`.
    """
    (b, h, _), known = index.shape, protected.shape[1]
    at = index.long().clamp(0, known - 1)
    own = protected[:, None].expand(b, h, known).gather(2, at) & (index >= 0) & (index < known)
    return own if valid is None else own & valid

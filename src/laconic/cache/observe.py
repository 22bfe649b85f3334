"""What a method may look at when a layer has run: queries, keys, values, and attention computed once and handed to all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch

from laconic.ops import attend as ops
from laconic.step import Step

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
        columns: accumulated columns of the entries stored before this pass (see `parts.FILL`), [B, Hkv, n - T].
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
    _memo: dict[object, torch.Tensor] = field(default_factory=dict, repr=False)

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

    def window(self, w: int) -> torch.Tensor:
        """Attention of the last ``min(w, T)`` queries over all n entries, fp32 softmax rows [B, Hkv, G, w, n]."""
        w = min(w, self.new)
        key = ("window", w)
        if key not in self._memo:
            self._memo[key] = ops.attention_rows(
                self.queries[:, :, self.new - w :], self.keys, self.scale, bias=self.bias, softcap=self.softcap
            )
        return self._memo[key]

    def last(self) -> torch.Tensor:
        """Attention of the last query, [B, Hkv, G, n]."""
        return self.window(1)[:, :, :, 0]

    def mass(self) -> torch.Tensor:
        """Attention that every entry has received so far, summed over queries, mean over the group, fp32 [B, Hkv, n].

        What earlier passes gave is taken from the column `mass`, so the sum is right over chunks and decoding steps.
        """
        if "mass" not in self._memo:
            queries = self.queries
            if self.step.valid is not None:  # padding asks nothing
                queries = queries.masked_fill(~self.step.valid[:, None, :, None], 0)
            mass = ops.attention_mass(queries, self.keys, self.scale, bias=self.bias, softcap=self.softcap)
            if self.step.valid is not None:
                mass = mass - self._padding_mass(queries)
            if "mass" in self.columns:
                mass[..., : self.columns["mass"].shape[-1]] += self.columns["mass"]
            self._memo["mass"] = mass
        return self._memo["mass"]

    def _padding_mass(self, queries: torch.Tensor) -> torch.Tensor:
        """What the zeroed padding queries (uniform attention over the real keys they see) added to the column sums."""
        assert self.step.valid is not None
        past = self.keys.shape[2] - self.new
        visible = torch.ones_like(self.keys[:, :, :, 0], dtype=torch.bool) if self.valid is None else self.valid
        counts = visible[..., :past].sum(-1, keepdim=True) + visible[..., past:].cumsum(-1)  # [B, Hkv, T]
        share = (~self.step.valid)[:, None] / counts.clamp(min=1)
        share = share.masked_fill(counts == 0, 0)
        later = share.flip(-1).cumsum(-1).flip(-1)  # every entry is seen by the padding queries at or after it
        return torch.cat([share.sum(-1, keepdim=True).expand(-1, -1, past), later], -1) * visible

    def plain_queries(self) -> torch.Tensor:
        """Queries of this pass before RoPE, [B, H, T, D]; q-norm stays applied."""
        if "plain" not in self._memo:
            cos, sin = self.rotary(self.step.position_ids)
            # a rotation times s is undone by its inverse over s^2 (cos and sin carry the attention factor s of YaRN)
            factor = (cos[..., :1, :1] ** 2 + sin[..., :1, :1] ** 2)[:, None]
            self._memo["plain"] = rotate(self.queries, cos, -sin) / factor
        return self._memo["plain"]


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x [B, H, n, D], cos/sin [B or 1, n, D_rot] -> x with its first D_rot channels rotated (half-split RoPE)."""
    rot = cos.shape[-1]
    x, rest = x[..., :rot], x[..., rot:]
    half = torch.cat([-x[..., rot // 2 :], x[..., : rot // 2]], -1)
    return torch.cat([x * cos[:, None] + half * sin[:, None], rest], -1)

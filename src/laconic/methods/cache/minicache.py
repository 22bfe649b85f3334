"""MiniCache: neighbouring layers in depth share one direction per token and keep their own lengths (arXiv 2405.14366)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch.linalg import vector_norm
from transformers import PreTrainedModel

from laconic import checks
from laconic.cache.layer import CompressedLayer
from laconic.cache.parts.base import DensePart
from laconic.cache.parts.pair import Merged, PairPart, extend, pair, pairs
from laconic.cache.parts.quantised import shed, without_filler
from laconic.cache.storage import StorageMethod
from laconic.errors import BudgetError
from laconic.families import family_of
from laconic.measure.cost import Shape
from laconic.method import register
from laconic.ops.quantise import BITS, GROUP, TILE


@register(
    "minicache",
    site="cache",
    mechanism="merging of layers",
    source="arXiv 2405.14366",
    query_aware=False,
    inferred="retained tokens are one list per pair (distance averaged over heads); decoded tokens are merged in blocks, "
    "against thresholds frozen at prefill; layout of 4-bit directions; a budget merges pairs from the deepest up",
)
@dataclass(kw_only=True)
class MiniCache(StorageMethod):
    """Store one unit direction per token for two neighbouring layers, interpolated on the sphere, and each layer's lengths.

    From half depth on, layers (2i, 2i + 1) are a pair. Tokens whose directions lie far apart in the two layers are stored
    exactly. Keys and values are merged separately, by the same rule, after the second layer's attention has run on the exact
    ones, so prefill is exact. Every token stays. Cannot be combined with another method on the cache.

    Args:
        keep, tokens, bytes: merge as few pairs as it takes, from the deepest up (to layer 0 if need be); the estimate
            assumes that the share `gamma` is retained. Tokens and bytes are compared with the prompt. Without any of them,
            `start` decides.
        start: first layer that may be merged; None means half depth.
        t: where the shared direction lies between the first (0) and the second layer (1) (0.6).
        gamma: retained part of the range of angles seen (0.05); with ``retention="topk"`` the share of tokens retained.
        retention: ``"range"``, the paper's rule, or ``"topk"``, as in a re-implementation.
        bits: of the directions, 2, 3, 4 or 8 (the paper has 4); None stores them in the model's dtype.
        buffer: decoded tokens are stored exactly until there are this many of them, and are then merged together (32).
    """

    start: int | None = None
    t: float = 0.6
    gamma: float = 0.05
    retention: Literal["range", "topk"] = "range"
    bits: int | None = None
    buffer: int = 32

    claims: ClassVar[frozenset[str]] = frozenset({"cache.entries", "cache.storage"})

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.between(self, "t")
        checks.between(self, "gamma")
        checks.one_of(self, "retention", "range", "topk")
        checks.one_of(self, "bits", None, *BITS)
        checks.at_least(self, "buffer", 1)
        if self.start is not None and self.start < 0:
            raise ValueError(f"minicache: start={self.start} must be a layer number, 0 or more.")

    # -- which layers ----------------------------------------------------------------------------------------------
    def attach(self, model: PreTrainedModel) -> None:
        stack = family_of(model).stack(model)
        kinds = getattr(stack.config, "layer_types", None) or ["full_attention"] * stack.config.num_hidden_layers
        layers, shape = kinds.count("full_attention"), Shape.of(model, stack)
        if self.start is not None and self.start > layers:
            raise ValueError(f"minicache: start={self.start} is after the last layer (0 .. {layers - 1}; {layers}: none).")
        if self.keep is not None and not self.neutral:
            self.first_merged(layers, self.keep, self.merged_share(shape.head_dim, shape.kv_heads, shape.itemsize))

    def merged_share(self, head_dim: int, kv_heads: int, itemsize: int) -> float:
        """Bytes of a merged pair over the bytes of its two layers, when the share `gamma` of the tokens is retained.

        Numbers per token and head: one direction (D), two lengths, and ``2 gamma D`` of exact rows, compared with 2 D.
        """
        direction = float(itemsize * head_dim)
        if self.bits is not None:  # a float16 step and zero per group: 64 tokens of keys, up to 64 channels of values
            groups = (1 / GROUP + 1 / min(GROUP, head_dim)) / 2
            direction = head_dim * (self.bits + 32 * groups) / 8
        exact = self.gamma * (2 * head_dim * itemsize + 4 / kv_heads)
        return (direction + 2 * itemsize + exact) / (2 * head_dim * itemsize)

    def first_merged(self, layers: int, share: float, merged: float) -> int:
        """The first layer that is merged, an even number, of `layers`; it and all later ones are merged in pairs.

        Args:
            share: of the bytes that may stay; merged: bytes of a merged pair over the bytes of its two layers.

        Raises:
            BudgetError: even merging all pairs is not enough.
        """
        last = layers - layers % 2
        lowest = (layers // 2 if self.budget_from_parameters else 0) if self.start is None else self.start
        lowest += lowest % 2
        if self.budget_from_parameters:
            return lowest
        pairs = math.ceil((1 - share) * layers / (2 * (1 - merged)) - 1e-9) if merged < 1 else layers
        if last - 2 * pairs < lowest:
            least = 1 - max(0, last - lowest) * (1 - merged) / layers
            raise BudgetError(
                f"minicache: {self.budget} asks for {share:.3f} of the bytes; merging all pairs from layer {lowest} on "
                f"leaves {least:.3f}, the smallest share. Ask for more" + (", set bits=4" if self.bits is None else "") + "."
            )
        return last - 2 * pairs

    def is_second(self, layer: CompressedLayer) -> bool:
        """Whether this layer is the second of a pair that is merged."""
        cache, step = layer.cache, layer.cache.step
        if layer.number % 2 == 0 or step is None:
            return False
        if isinstance(layer.parts[0], PairPart):
            return True
        share = self.keep
        if share is None and not self.budget_from_parameters:
            if not step.prefill:  # a number of tokens or bytes: only prefill passes decide, and may refuse
                return False
            seen = max(step.real)
            share = self.budget.entries(seen, cache.entry_bytes) / seen
        part = layer.parts[0]
        assert isinstance(part, DensePart)
        merged = self.merged_share(part.keys.shape[-1], part.keys.shape[1], part.keys.itemsize)
        return layer.number > self.first_merged(len(cache.layer_ids), 1.0 if share is None else share, merged)

    # -- merging ---------------------------------------------------------------------------------------------------
    def pack(self, layer: CompressedLayer) -> None:
        step, tail = layer.cache.step, layer.parts[-1]
        prefill = step is not None and step.prefill
        if (tail.length < self.buffer and not prefill) or not self.is_second(layer):
            return
        ready = tail.length if self.bits is None else tail.length // TILE * TILE  # packed directions grow by whole tiles
        if ready == 0:
            return
        first = list(layer.cache.compressed())[layer.number - 1]
        (keys0, values0, _), (keys1, values1, columns) = shed(first.parts, ready), shed(layer.parts, ready)
        columns = {name: columns[name][:, :1].clone() for name in ("index", "valid") if name in columns}
        real = columns["valid"][:, 0] if "valid" in columns else torch.ones_like(columns["index"][:, 0], dtype=torch.bool)
        learn = prefill or "merging" not in layer.state
        if "merging" not in layer.state:
            limits = torch.tensor([2.0, -1.0, -1.0], device=keys0.device)
            layer.state["merging"] = limits.repeat(keys0.shape[0], 2, 1)
        keys_limits, values_limits = layer.state["merging"].unbind(1)
        keys = self.merge(keys0, keys1, real, keys_limits, learn)
        values = self.merge(values0, values1, real, values_limits, learn)
        own = pairs(layer, frozen=False)
        if own:
            extend(own[0].first, own[0], keys, values, columns)
        else:
            parts = pair(keys, values, columns, self.bits)
            for place, part in zip((first, layer), parts, strict=True):
                part.link(place)
                place.parts.insert(-1, part)

    def merge(
        self, first: torch.Tensor, second: torch.Tensor, real: torch.Tensor, limits: torch.Tensor, learn: bool
    ) -> Merged:
        """Merge vectors [B, Hkv, m, D] of two layers; `real` [B, m] is False at padding, `limits` as in `set_threshold`,
        which is called first if `learn`."""
        directions, norms, distance = slerp(first, second, self.t)
        distance = distance.masked_fill(~real, -1.0)
        if learn:
            self.set_threshold(distance, real, limits)
        kept = distance > limits[:, 2:]
        # A row that retains fewer than others in the batch is filled up with vectors as they are restored anyway.
        places = distance.topk(int(kept.sum(-1).max()), -1).indices.sort(-1).values
        if self.bits is not None:
            directions = without_filler(directions, {"valid": real[:, None].expand(norms[0].shape)}, GROUP)

        def at(x: torch.Tensor) -> torch.Tensor:
            return x.gather(2, places[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))

        own = kept.gather(1, places)[:, None, :, None]
        restored = (at(directions * r[..., None]).to(first.dtype) for r in norms)
        exact = [torch.where(own, at(x), other) for x, other in zip((first, second), restored, strict=True)]
        dtype = first.dtype
        return Merged(directions.to(dtype), (norms[0].to(dtype), norms[1].to(dtype)), places, (exact[0], exact[1]))

    @torch.no_grad()
    def set_threshold(self, distance: torch.Tensor, real: torch.Tensor, limits: torch.Tensor) -> None:
        """Find the distance above which tokens are retained, from those of a prefill pass.

        Args:
            distance: [B, m], -1 at padding; real: [B, m].
            limits: smallest and largest distance of all prefill passes so far, and the threshold, [B, 3]; written to.
        """
        low, high, threshold = limits.unbind(-1)
        low.copy_(torch.minimum(low, distance.masked_fill(~real, 2.0).amin(-1)))
        high.copy_(torch.maximum(high, distance.amax(-1)))
        if self.gamma == 1:
            threshold.fill_(-1.0)
        elif self.retention == "range":
            threshold.copy_(high - self.gamma * (high - low))
        else:
            falling = torch.nn.functional.pad(distance.sort(-1, descending=True).values, (0, 1), value=-1.0)
            count = (self.gamma * real.sum(-1) + 1e-6).long()
            threshold.copy_(falling.gather(-1, count[:, None])[:, 0])


def slerp(
    first: torch.Tensor, second: torch.Tensor, t: float
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Vectors [B, h, m, D] of two layers -> unit directions between them [B, h, m, D], their norms [B, h, m] each, and the
    distance of the two directions, angle / pi averaged over heads [B, m]. All in fp32.

    ``e = (sin((1 - t) w) v + sin(t w) u) / sin w`` with u of the second layer and v of the first, w their angle.
    """
    first, second = first.float(), second.float()
    norms = vector_norm(first, dim=-1), vector_norm(second, dim=-1)
    v, u = (x / r.clamp(min=1e-6)[..., None] for x, r in zip((first, second), norms, strict=True))
    # arccos(u . v) without its loss of precision at small angles
    angle = 2 * torch.atan2(vector_norm(u - v, dim=-1), vector_norm(u + v, dim=-1))[..., None]
    sine = angle.sin()
    flat = sine < 1e-6
    sine = sine.masked_fill(flat, 1.0)
    at_v = torch.where(flat, 1 - t, ((1 - t) * angle).sin() / sine)
    at_u = torch.where(flat, t, (t * angle).sin() / sine)
    between = at_v * v + at_u * u
    directions = between / vector_norm(between, dim=-1, keepdim=True).clamp(min=1e-6)
    return directions, norms, (angle[..., 0] / math.pi).mean(1)

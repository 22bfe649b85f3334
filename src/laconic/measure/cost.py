"""What a prompt costs: FLOPs and KV bytes by formula, and the counter of what actually ran.

Conventions: a multiply-add is two FLOPs; attention costs ``4 * D`` per visible (query, key) pair and query head (scores and
values); norms, activations and softmax are left out, as usual. The language-model head counts for the positions it ran on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn


def parameters_of(layer: nn.Module) -> int:
    """Parameters of a layer's matrices, which every token of its input is multiplied with.

    A linear module counts by its features: quantised ones store several numbers in one (bitsandbytes), or no parameters.
    """
    total = 0
    for module in layer.modules():
        own = {name: p.numel() for name, p in module.named_parameters(recurse=False) if p.ndim >= 2}
        if hasattr(module, "in_features") and hasattr(module, "out_features") and not any(module.children()):
            own["weight"] = int(module.in_features) * int(module.out_features)  # type: ignore[arg-type]
        total += sum(own.values())
    return total


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that its cost depends on.

    Attributes:
        weights: parameters of each layer's matrices (all experts of a mixture count, so it is an upper bound there).
        heads, kv_heads, head_dim: of the attention.
        head_weights: parameters of the language-model head.
        itemsize: bytes of one cached number.
    """

    weights: tuple[int, ...]
    heads: int
    kv_heads: int
    head_dim: int
    head_weights: int
    itemsize: int

    @classmethod
    def of(cls, model: nn.Module, stack: Any) -> Shape:
        """Read the sizes from a transformers model and its text stack."""
        config = stack.config
        weights = tuple(parameters_of(layer) for layer in stack.layers)
        head = getattr(model, "lm_head", None)
        return cls(
            weights,
            config.num_attention_heads,
            getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            parameters_of(head) if isinstance(head, nn.Module) else 0,
            stack.dtype.itemsize,
        )

    @property
    def layers(self) -> int:
        return len(self.weights)

    def kv_bytes(self, entries: Sequence[int]) -> int:
        """Bytes of keys and values when layer i stores `entries[i]` entries in each KV head."""
        return sum(entries) * 2 * self.kv_heads * self.head_dim * self.itemsize

    def prefill_flops(self, stream: Sequence[int], logits: int = 1) -> int:
        """FLOPs of one prompt when `stream[i]` tokens run through layer i and `logits` positions through the head."""
        linear = sum(2 * w * n for w, n in zip(self.weights, stream, strict=True))
        pairs = sum(n * (n + 1) // 2 for n in stream)
        return linear + 4 * self.head_dim * self.heads * pairs + 2 * self.head_weights * logits

    def decode_flops(self, entries: Sequence[int]) -> int:
        """FLOPs of one decoded token that sees `entries[i]` entries (itself included) in layer i."""
        return 2 * (sum(self.weights) + self.head_weights) + 4 * self.head_dim * self.heads * sum(entries)


@dataclass
class FlopCounter:
    """Counts what ran: (layer, tokens, visible pairs) of every pass. FLOPs follow from the model's `Shape`."""

    shape: Shape
    prefill: int = 0
    decode: int = 0
    stream: dict[int, int] = field(default_factory=dict)
    visual: dict[int, float] = field(default_factory=dict)

    def image(self, layer: int, tokens: float) -> None:
        """`tokens` visual tokens per sequence ran through one layer."""
        self.visual[layer] = self.visual.get(layer, 0.0) + tokens

    def layer(self, layer: int, batch: int, tokens: int, pairs: int, prefill: bool, *, weights: int | None = None) -> None:
        """One layer ran `tokens` tokens per sequence; `pairs` (query, key) pairs per query head were visible in
        total. `weights`: parameters of the matrices that ran, where another module took the layer's place."""
        used = self.shape.weights[layer] if weights is None else weights
        flops = 2 * used * batch * tokens + 4 * self.shape.head_dim * self.shape.heads * pairs
        self._add(flops, prefill)
        if prefill:
            self.stream[layer] = self.stream.get(layer, 0) + tokens

    def module(self, weights: int, tokens: int, prefill: bool) -> None:
        """A module beside the layers' own ran on `tokens` tokens in total; `weights`: parameters of its matrices."""
        self._add(2 * weights * tokens, prefill)

    def head(self, positions: int, prefill: bool) -> None:
        """The language-model head ran on `positions` positions in total."""
        self._add(2 * self.shape.head_weights * positions, prefill)

    def _add(self, flops: int, prefill: bool) -> None:
        if prefill:
            self.prefill += flops
        else:
            self.decode += flops

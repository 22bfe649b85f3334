"""The networks of learned memories: from a segment of token ids to a few soft tokens in the model's embedding space, or from
a whole context to keys and values."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.measure.cost import Shape
from laconic.memory.prefix import Prefix

SEGMENTS = 64
"""Segments that are compressed at once; it bounds the memory that a long document takes."""


def slots_of(tokens: int, keep: float) -> int:
    """Soft tokens of a segment: the share of its tokens, rounded up, at least one."""
    return max(1, math.ceil(tokens * keep - 1e-9))


def embedded(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Input embeddings of token ids, without a gradient for the table: [B, n] -> [B, n, d], fp32. What is embedded already,
    such as a context that shows images, stays as it is."""
    if ids.is_floating_point():
        return ids.float()
    table: Any = model.get_input_embeddings()
    with torch.no_grad():
        return table(ids).float()  # type: ignore[no-any-return]


class Compressor(nn.Module):
    """Makes soft tokens of segments, each by itself. A subclass gives `forward` and `flops`.

    Args:
        segment: tokens of a segment; the last one of a context may be shorter.
    """

    independent: ClassVar[bool] = True
    """Whether what is made of a segment depends on nothing else."""

    def __init__(self, segment: int):
        super().__init__()
        self.segment = segment
        self.gain = nn.Parameter(torch.ones(()))
        """Factor on the soft tokens: states after a layer may be many times as long as the embeddings around them."""

    def forward(self, model: PreTrainedModel, ids: Tensor, slots: int) -> Tensor:
        """Compress one segment of every row.

        Args:
            model: the frozen model that will read the soft tokens. `ids`: [B, s], s at most `segment`.

        Returns:
            soft tokens [B, slots, d], fp32, without the `gain`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward().")

    def flops(self, shape: Shape, tokens: int, slots: int) -> int:
        """What `forward` costs for one segment of this many tokens; `shape`: of the model."""
        raise NotImplementedError(f"{type(self).__name__} must define flops().")

    def count(self, tokens: int, keep: float) -> int:
        """Soft tokens of a segment of this many tokens."""
        return slots_of(tokens, keep)

    def closing(self) -> Tensor | None:
        """Soft tokens [k, d] that stand after those of all segments; None: there are none."""
        return None

    def contexts(self, model: PreTrainedModel, ids: Tensor, keep: float) -> Tensor:
        """Compress whole contexts of one length: ids [B, n] -> soft tokens [B, m, d].

        Segments of full length go through the network together, the shorter last one alone, so nothing is ever padded.
        """
        batch, n = ids.shape
        whole = n // self.segment * self.segment
        parts = []
        if whole:
            pieces = ids[:, :whole].reshape(-1, self.segment).split(SEGMENTS * batch)
            slots = self.count(self.segment, keep)
            soft = self.gain * torch.cat([self(model, piece, slots) for piece in pieces])
            parts.append(soft.reshape(batch, -1, soft.shape[-1]))
        if n > whole:
            parts.append(self.gain * self(model, ids[:, whole:], self.count(n - whole, keep)))
        if (closing := self.closing()) is not None:
            parts.append(closing.expand(batch, -1, -1))
        return torch.cat(parts, 1)

    def context_flops(self, shape: Shape, tokens: int, keep: float) -> int:
        """What `contexts` costs for one context."""
        full, rest = divmod(tokens, self.segment)
        total = full * self.flops(shape, self.segment, self.count(self.segment, keep))
        return total + (self.flops(shape, rest, self.count(rest, keep)) if rest else 0)


class PrefixCompressor(nn.Module):
    """Makes a prefix of whole contexts. A subclass gives `forward` and `flops`.

    Args:
        segment: tokens that are read together; the last segment of a context may be shorter.
    """

    def __init__(self, segment: int):
        super().__init__()
        self.segment = segment

    def forward(self, model: PreTrainedModel, opening: Tensor, ids: Tensor, keep: float) -> Prefix:
        """Compress contexts of one length.

        Args:
            model: the frozen model that will attend to the prefix. `ids`: [B, n], n at least 1.
            opening: ids that stand before every context in its prompt, [o]; the prefix holds their entries, too.
            keep: share of the context's tokens that becomes entries.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward().")

    def flops(self, shape: Shape, opening: int, tokens: int, keep: float) -> int:
        """What `forward` costs for one context; `shape`: of the model."""
        raise NotImplementedError(f"{type(self).__name__} must define flops().")


def decoder_flops(shape: Shape, tokens: int, layers: int | None = None) -> int:
    """FLOPs of `tokens` tokens through the first `layers` layers of a decoder (None: all), without its head."""
    count = shape.layers if layers is None else layers
    return shape.prefill_flops([tokens] * count + [0] * (shape.layers - count), logits=0)

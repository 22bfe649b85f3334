"""What vision encoders attend to, from queries and keys that hooks capture; no P x P matrix of all heads in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from laconic.errors import UnsupportedModelError

BLOCK = 256


@dataclass(frozen=True)
class Tower:
    """Where an encoder keeps its layers.

    Attributes:
        layers: path of the layer list; `attention`: its attention module within a layer.
        cls: whether the first token of every image is a CLS token.
        fused: one projection for queries, keys and values; rotary phases; images packed into one sequence.
    """

    layers: str
    attention: str
    cls: bool = False
    fused: bool = False


TOWERS = {
    "clip_vision_model": Tower("encoder.layers", "self_attn", cls=True),
    "siglip_vision_model": Tower("encoder.layers", "self_attn"),
    "internvl_vision": Tower("encoder.layer", "attention", cls=True),
    "qwen2_vl_vision": Tower("blocks", "attn", fused=True),
    "qwen2_5_vl_vision": Tower("blocks", "attn", fused=True),
    "qwen3_vl_vision": Tower("blocks", "attn", fused=True),
    "qwen2_audio_encoder": Tower("layers", "self_attn"),
}


def tower_of(tower: nn.Module) -> Tower:
    """Where this encoder keeps its layers.

    Raises:
        UnsupportedModelError: it is not one of `TOWERS`.
    """
    kind = getattr(getattr(tower, "config", None), "model_type", type(tower).__name__)
    if kind not in TOWERS:
        raise UnsupportedModelError(
            f"laconic does not know the vision encoder {kind!r}; known encoders: {', '.join(sorted(TOWERS))}."
        )
    return TOWERS[kind]


def layers_of(tower: nn.Module) -> nn.ModuleList:
    """The encoder's layers."""
    layers = getattr(tower, "vision_model", tower).get_submodule(tower_of(tower).layers)  # type: ignore[union-attr]
    assert isinstance(layers, nn.ModuleList)
    return layers


def layer_number(tower: nn.Module, layer: int) -> int:
    """`layer`, counted from the end when negative, as an index from 0.

    Raises:
        ValueError: there is no such layer.
    """
    depth = len(layers_of(tower))
    if not -depth <= layer < depth:
        raise ValueError(f"layer={layer}: this vision encoder has layers 0..{depth - 1} (or -{depth}..-1).")
    return layer % depth


@dataclass
class EncoderAttention:
    """Queries and keys of one layer for all images of one encoder call, concatenated, rotary phases applied.

    Attributes:
        queries, keys: [H, N, d]; `bounds`: 0 and the end of every segment that attends within itself.
        scale: of the logits. `cls`: whether every segment begins with a CLS token.
    """

    queries: Tensor
    keys: Tensor
    bounds: list[int]
    scale: float
    cls: bool

    def stretches(self) -> list[tuple[int, int]]:
        return list(zip(self.bounds[:-1], self.bounds[1:], strict=True))

    def without_cls(self, x: Tensor) -> Tensor:
        """Entries of patches, along dim 1 of [H, N, ...]."""
        if not self.cls:
            return x
        patch = torch.ones(x.shape[1], dtype=torch.bool, device=x.device)
        patch[self.bounds[:-1]] = False
        return x[:, patch]

    def cls_attention(self, logits: bool) -> Tensor:
        """The attention that each image's CLS token pays to its patches, fp32 [H, patches]: softmax(q_cls k^T * scale) over
        the image with its CLS token, or the logits before the softmax."""
        rows = []
        for start, stop in self.stretches():
            row = self.queries[:, start : start + 1].float() @ self.keys[:, start:stop].float().mT * self.scale
            rows.append(row[:, 0] if logits else row[:, 0].softmax(-1))
        return self.without_cls(torch.cat(rows, 1))

    def received_attention(self) -> Tensor:
        """Mean attention that each patch receives from all tokens of its segment, fp32 [H, patches], by query blocks."""
        columns = []
        for start, stop in self.stretches():
            keys = self.keys[:, start:stop].float()
            total = keys.new_zeros(keys.shape[:2])
            for first in range(start, stop, BLOCK):
                queries = self.queries[:, first : min(first + BLOCK, stop)].float()
                total += (queries @ keys.mT * self.scale).softmax(-1).sum(1)
            columns.append(total / (stop - start))
        return self.without_cls(torch.cat(columns, 1))


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Half-split RoPE on [N, H, d] with phases [N, d]."""
    first, second = x.float().chunk(2, -1)
    turned = x.float() * cos[:, None].float() + torch.cat([-second, first], -1) * sin[:, None].float()
    return turned.to(x.dtype)


def catch(tower: nn.Module, layer: int, keep: Callable[[EncoderAttention], None]) -> list[RemovableHandle]:
    """Hook one layer of an encoder: `keep` is called with its queries and keys at every call."""
    kind = tower_of(tower)
    attention: Any = layers_of(tower)[layer_number(tower, layer)].get_submodule(kind.attention)
    heads, scale = attention.num_heads, getattr(attention, "scaling", None) or attention.scale
    here = threading.local()  # what a call has shown so far; several threads may call at once

    def fused_in(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        here.phases, here.bounds = kwargs["position_embeddings"], kwargs["cu_seqlens"].tolist()

    def fused_out(module: nn.Module, args: Any, output: Tensor) -> None:
        q, k, _ = output.view(len(output), 3, heads, -1).unbind(1)
        q, k = (_rotated(x, *here.phases).transpose(0, 1) for x in (q, k))
        keep(EncoderAttention(q, k, here.bounds, scale, kind.cls))

    def apart(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def out(module: nn.Module, args: Any, output: Tensor) -> None:
            seen = vars(here)
            seen[name] = output
            if len(seen) == 2:
                images, tokens, _ = output.shape
                q, k = (seen.pop(x).reshape(images * tokens, heads, -1).transpose(0, 1) for x in ("q", "k"))
                keep(EncoderAttention(q, k, list(range(0, images * tokens + 1, tokens)), scale, kind.cls))

        return out

    if kind.fused:
        return [
            attention.register_forward_pre_hook(fused_in, with_kwargs=True),
            attention.qkv.register_forward_hook(fused_out),
        ]
    return [
        getattr(attention, "q_norm", attention.q_proj).register_forward_hook(apart("q")),
        getattr(attention, "k_norm", attention.k_proj).register_forward_hook(apart("k")),
    ]

"""`Visual`: everything that a method may know about the images of a batch, whatever the family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.errors import UnsupportedModelError
from laconic.families.vision.base import EncoderCall, VisionFamily
from laconic.families.vision.encoder import EncoderAttention, layer_number
from laconic.families.vision.spans import VisualSpan


@dataclass(frozen=True)
class Visual:
    """The visual tokens of one pass: all that methods need, so that none of them depends on a family's name. What several
    methods ask for is computed once.

    Attributes:
        spans: all views, by batch row, in prompt order.
        mask: tokens that stand for a visual feature, separators too, bool [B, T].
        separators: the ones among them that stand for no patch: line ends (image_newline) and, with "full" features, CLS;
            [B, T].
        positions: rotary positions of all tokens, [1, B or 1, T], or [3, B, T] (time, height, width) with M-RoPE.
        has_cls: whether the encoder has a CLS token.
        feature_layer: the encoder layer whose output becomes the features, from 0; an error where several are joined.
        deepstack: a stream may be shortened before the decoder (`shorten.shortened`) and before its layers from `deepstack`
            on, but not in between.
    """

    family: VisionFamily = field(repr=False)
    model: PreTrainedModel = field(repr=False)
    spans: list[VisualSpan]
    mask: Tensor
    separators: Tensor
    positions: Tensor
    calls: Mapping[str, EncoderCall] = field(repr=False)
    placeholders: Mapping[str, Tensor] = field(repr=False)
    crop_grids: Mapping[tuple[str, int], tuple[int, int] | None]
    memo: dict[Any, Tensor] = field(default_factory=dict, repr=False)

    @property
    def has_cls(self) -> bool:
        return self.family.has_cls(self.model)

    @property
    def feature_layer(self) -> int:
        """See `VisionFamily.feature_layer`."""
        return self.family.feature_layer(self.model)

    @property
    def deepstack(self) -> int:
        """See `VisionFamily.deepstack`."""
        return self.family.deepstack(self.model)

    def of(self, row: int, image: int, modality: str = "image") -> list[VisualSpan]:
        """The views of one image in one batch row: the whole image first, then crops, or frames in time."""
        views = [s for s in self.spans if (s.row, s.image, s.modality) == (row, image, modality)]
        return sorted(views, key=lambda s: (s.frame, abs(s.crop)))

    def crop_grid(self, image: int, modality: str = "image") -> tuple[int, int]:
        """(rows, cols) of an image's crops; (0, 0) when it has none.

        Raises:
            UnsupportedModelError: the model's inputs do not tell.
        """
        grid = self.crop_grids[modality, image]
        if grid is None:
            raise UnsupportedModelError(
                f"a {self.family.name} model is not told how the crops of {modality} {image} are arranged; use a "
                "method that treats every view by itself, or feed images as one view (crop_to_patches=False)."
            )
        return grid

    def features(self, span: VisualSpan) -> Tensor:
        """Features after the projector, as they go into the decoder, in the order of `span.tokens`, [n, D]."""
        placeholders = self.placeholders[span.modality]
        rank = self._once(("rank", span.modality), lambda: placeholders.flatten().cumsum(0).view_as(placeholders) - 1)
        packed = self._once(("packed", span.modality), self.calls[span.modality].packed)
        return packed[rank[span.row, span.tokens]]

    def patches(self, span: VisualSpan) -> Tensor:
        """The encoder's output for the patches of a span, before projector and merger, [gh, gw, C]."""
        call = self.calls[span.modality]
        return self._once(("patches", span.modality), lambda: self.family.patch_features(self.model, call))[span.patches]

    def states(self, span: VisualSpan, layer: int) -> Tensor:
        """What the encoder made of the patches of a span in its layer `layer`, counted from 1 (0: its embeddings),
        [gh, gw, C].

        Raises:
            UnsupportedModelError: the model does not ask its encoder for hidden states.
        """
        found = getattr(self.calls[span.modality].output, "hidden_states", None)
        if found is None:
            raise UnsupportedModelError(
                f"a {self.family.name} model does not ask its encoder for the hidden states of single layers; use a method "
                "that reads the encoder's output, or one that acts on tokens."
            )
        patches = self.family.side(self.model) ** 2
        return self._once(("states", span.modality, layer), lambda: found[layer][:, -patches:].flatten(0, 1))[span.patches]

    def project(self, x: Tensor) -> Tensor:
        """Encoder vectors [n, C], of patches or mixtures of patches, projected into the decoder's space, [n, D].

        Raises:
            UnsupportedModelError: the model merges patches before its projector.
        """
        projector = self.family.projector(self.model)
        if self.family.merges or projector is None:
            raise UnsupportedModelError(
                f"a {self.family.name} model merges blocks of patches before it projects them, so single or mixed patches "
                "cannot be projected; work on features(), after the projector, and turn scores of patches into scores of "
                "tokens with pool()."
            )
        return projector(x[None])[0]

    def pool(self, span: VisualSpan, x: Tensor) -> Tensor:
        """Values of patches [gh, gw, ...] as values of tokens [n, ...], pooled as the model makes tokens from patches: the
        mean over a merged block, or the model's own bilinear resampling."""
        (rows, cols), (height, width) = span.grid, span.patches.shape
        if (rows, cols) != (height, width):
            flat = x.reshape(height, width, -1).permute(2, 0, 1)[None]
            if span.resampled:
                flat = nn.functional.interpolate(flat.float(), span.grid, mode="bilinear").to(x.dtype)
            else:
                flat = nn.functional.avg_pool2d(flat, (height // rows, width // cols))
            x = flat[0].permute(1, 2, 0).reshape(rows, cols, *x.shape[2:])
        return x[span.cells >= 0]

    def cls_attention(self, span: VisualSpan, layer: int = -1, *, logits: bool = False) -> Tensor:
        """What the encoder's CLS token pays to the patches of a span in an encoder layer, fp32 [H, gh, gw]; the logits
        before the softmax if asked. The softmax runs over the whole view with its CLS token.

        Raises:
            UnsupportedModelError: no CLS token.
            ValueError: the layer was not watched, or does not exist.
        """
        if not self.has_cls:
            raise UnsupportedModelError(
                f"the vision encoder of this {self.family.name} model has no CLS token, so there is no CLS attention; use "
                "received_attention, the mean attention that a patch receives."
            )
        heads = self._heads(span, layer)
        return self._once(("cls", id(heads), logits), lambda: heads.cls_attention(logits))[:, span.patches]

    def received_attention(self, span: VisualSpan, layer: int = -1) -> Tensor:
        """Mean attention that the patches of a span receive from all tokens encoded with them, fp32 [H, gh, gw]."""
        heads = self._heads(span, layer)
        return self._once(("received", id(heads)), heads.received_attention)[:, span.patches]

    def keys(self, span: VisualSpan, layer: int = -1) -> Tensor:
        """Keys of the patches of a span in an encoder layer, [H, gh, gw, d]."""
        heads = self._heads(span, layer)
        return heads.without_cls(heads.keys)[:, span.patches]

    def mean_query_attention(self, span: VisualSpan, layer: int = -1) -> Tensor:
        """What the mean query of a span's patches pays to its tokens in an encoder layer, fp32 [n]: keys pooled as the model
        makes tokens of patches, softmax over the tokens, mean over heads."""
        heads = self._heads(span, layer)
        query = heads.without_cls(heads.queries)[:, span.patches].float().mean((1, 2))  # [H, d]
        keys = self.pool(span, self.keys(span, layer).permute(1, 2, 0, 3).float())  # [n, H, d]
        return (torch.einsum("hd,nhd->hn", query, keys) * heads.scale).softmax(-1).mean(0)

    def _once(self, key: Any, compute: Callable[[], Tensor]) -> Tensor:
        if key not in self.memo:
            self.memo[key] = compute()
        return self.memo[key]

    def _heads(self, span: VisualSpan, layer: int) -> EncoderAttention:
        number = layer_number(self.family.tower(self.model), layer)
        heads = self.calls[span.modality].heads
        if number not in heads:
            raise ValueError(f"layer={layer} of the vision encoder was not watched; watched layers: {sorted(heads)}.")
        return heads[number]

"""What a vision family knows about a model, and how the adapter for a model is found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.errors import UnsupportedModelError
from laconic.families.vision.encoder import EncoderAttention, layers_of, tower_of
from laconic.families.vision.spans import Item

_REGISTRY: dict[str, VisionFamily] = {}


@dataclass
class EncoderCall:
    """What hooks captured of one call of the vision encoder and of the projector after it.

    Attributes:
        arguments: of the encoder, by keyword.
        output: of the encoder; the model puts the features that go into the prompt into its `pooler_output` later.
        before, after: the projector's input and output; None in families whose encoder includes the projection.
        heads: queries and keys of the watched layers, by layer number.
        lengths: tokens of each sound [clips], where rows of `after` end in padding; None where every row is full.
    """

    arguments: dict[str, Any]
    output: Any = None
    before: Tensor | None = None
    after: Tensor | None = None
    heads: dict[int, EncoderAttention] = field(default_factory=dict)
    lengths: list[int] | None = None

    def packed(self) -> Tensor:
        """Features of all placeholder tokens of the batch in their order, [n, D]."""
        if self.lengths is not None:
            assert self.after is not None
            return torch.cat([row[:length] for row, length in zip(self.after, self.lengths, strict=True)])
        features = self.output.pooler_output
        return features.flatten(0, 1) if isinstance(features, Tensor) else torch.cat(list(features))


class VisionFamily:
    """One family of vision language models. Stateless; methods take the model.

    Attributes:
        name: for messages. `model_types`: `config.model_type` values of the whole model.
        merges: blocks of patches become one vector before the projector, which therefore cannot project single patches.
        audio: what it encodes is sound (`families.audio`), not images.
    """

    name = ""
    model_types: tuple[str, ...] = ()
    merges = False
    audio = False

    def core(self, model: PreTrainedModel) -> Any:
        """The module that owns encoder, projector and decoder."""
        return model.base_model

    def tower(self, model: PreTrainedModel) -> Any:
        """The vision encoder, a module."""
        return self.core(model).vision_tower

    def projector(self, model: PreTrainedModel) -> nn.Module | None:
        """The module between encoder and decoder; None where it is inside the encoder."""
        return self.core(model).multi_modal_projector

    def has_cls(self, model: PreTrainedModel) -> bool:
        """Whether the encoder has a CLS token."""
        return tower_of(self.tower(model)).cls

    def omits_patch(self, model: PreTrainedModel) -> bool:
        """The model leaves the first vector of every view out as if it were CLS, and its encoder has none: the first patch
        has no token."""
        return getattr(model.config, "vision_feature_select_strategy", "") == "default" and not self.has_cls(model)

    def side(self, model: PreTrainedModel) -> int:
        """Patches along each side of one view, for encoders with one resolution."""
        config = self.tower(model).config
        size, patch = (x[0] if isinstance(x, (list, tuple)) else x for x in (config.image_size, config.patch_size))
        return int(size // patch)

    def image_side(self, model: PreTrainedModel) -> int | None:
        """Pixels along each side of one view; None for encoders that take images of any size."""
        size = getattr(self.tower(model).config, "image_size", None)
        return size[0] if isinstance(size, (list, tuple)) else size

    def token_id(self, model: PreTrainedModel, modality: str) -> int:
        """The placeholder token of a modality."""
        return int(getattr(model.config, f"{modality}_token_id"))

    def feature_layer(self, model: PreTrainedModel) -> int:
        """The encoder layer whose output becomes the features, from 0."""
        depth = len(layers_of(self.tower(model)))
        chosen = getattr(model.config, "vision_feature_layer", -1)
        if not isinstance(chosen, int):
            raise UnsupportedModelError(
                f"this {self.name} model joins features of the layers {list(chosen)}, so there is no single feature layer; "
                "name a layer of the encoder instead."
            )
        return depth + chosen if chosen < 0 else chosen - 1

    def deepstack(self, model: PreTrainedModel) -> int:
        """Number of decoder layers after which the model adds visual features again."""
        return 0

    def items(self, model: PreTrainedModel, modality: str, call: EncoderCall, runs: list[list[int]]) -> list[Item]:
        """The images of an encoder call, in order.

        Args:
            runs: lengths of the unbroken runs of placeholders, per batch row.
        """
        raise NotImplementedError

    def patch_features(self, model: PreTrainedModel, call: EncoderCall) -> Tensor:
        """The encoder's output for every patch, before projector and merger, [patches, C]."""
        assert call.before is not None
        patches = call.before
        if self.omits_patch(model):  # the projector did not get it, but the encoder has it
            chosen = model.config.vision_feature_layer
            layers = [chosen] if isinstance(chosen, int) else chosen
            patches = torch.cat([call.output.hidden_states[layer] for layer in layers], -1)
        return patches[:, -(self.side(model) ** 2) :].flatten(0, 1)


def add(family: VisionFamily) -> VisionFamily:
    """Register a family for all its model types."""
    for model_type in family.model_types:
        _REGISTRY[model_type] = family
    return family


def supported_vision_families() -> list[VisionFamily]:
    """All families that take images, by name."""
    return _registered(audio=False)


def supported_audio_families() -> list[VisionFamily]:
    """All families that take sound, by name."""
    return _registered(audio=True)


def _registered(audio: bool) -> list[VisionFamily]:
    return sorted({family for family in _REGISTRY.values() if family.audio == audio}, key=lambda family: family.name)


def deepstack_of(model: PreTrainedModel) -> int:
    """Decoder layers after which a model adds visual features again; 0 for models without images."""
    family = _REGISTRY.get(model.config.model_type)
    return 0 if family is None else family.deepstack(model)


def encoder_depth(model: PreTrainedModel) -> int:
    """Layers of a model's vision encoder."""
    return len(layers_of(vision_family_of(model).tower(model)))


def vision_family_of(model: nn.Module) -> VisionFamily:
    """The adapter for a model.

    Raises:
        UnsupportedModelError: no adapter covers it, or its vision encoder is of an unknown kind.
    """
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if not isinstance(model, PreTrainedModel) or kind not in _REGISTRY:
        raise UnsupportedModelError(
            f"laconic does not know where {type(model).__name__} has its visual tokens; supported families: "
            f"{', '.join(family.name for family in supported_vision_families())}."
        )
    family = _REGISTRY[kind]
    tower_of(family.tower(model))
    return family

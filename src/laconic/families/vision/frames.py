"""Frames through a model's own encoder, a few at a time and outside its forward: what a whole video would become, too."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel

from laconic.errors import UnsupportedModelError
from laconic.families.vision.base import vision_family_of


@dataclass(frozen=True)
class Frames:
    """B clips of T frames.

    Attributes:
        tokens: visual tokens as the decoder would read them, [B, T, h, w, D].
        closing: what the model puts after a video, [k, D].
        states: after the embeddings and after every encoder layer, with CLS where there is one, [B, T, N, C] each.
    """

    tokens: Tensor
    closing: Tensor
    states: list[Tensor]


def encode_frames(model: PreTrainedModel, pixels: Tensor) -> Frames:
    """Encode pixels [B, T, 3, S, S].

    Raises:
        UnsupportedModelError: a model that turns several frames into one, or has no video input.
    """
    family = vision_family_of(model)
    if family.name != "LLaVA-OneVision":
        raise UnsupportedModelError(
            f"a {family.name} model does not encode the frames of a video one by one, as LLaVA-OneVision does; use a model "
            "of that class."
        )
    core, (batch, count) = family.core(model), pixels.shape[:2]
    seen = core.get_video_features(pixels.to(model.device, model.dtype).contiguous())
    side = math.ceil(family.side(model) / 2)
    tokens = seen.pooler_output[:, : count * side**2]
    return Frames(
        tokens.unflatten(1, (count, side, side)),
        core.image_newline[None],
        [x.unflatten(0, (batch, count)) for x in seen.hidden_states],
    )

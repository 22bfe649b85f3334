"""Whisper: an encoder of 20 ms tokens over windows of 30 s, and a decoder that looks at all of them (arXiv 2212.04356)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.errors import UnsupportedModelError
from laconic.families.audio.base import FRAME

WHISPER = "whisper"
"""`config.model_type` of the models that this file knows."""


def core_of(model: nn.Module) -> Any:
    """The module that owns encoder and decoder.

    Raises:
        UnsupportedModelError: it is no Whisper model with both.
    """
    core = getattr(model, "model", model)
    known = isinstance(model, PreTrainedModel) and model.config.model_type == WHISPER
    if not known or not hasattr(core, "encoder") or not hasattr(core, "decoder"):
        raise UnsupportedModelError(
            f"{type(model).__name__} is no Whisper model with encoder and decoder, the only models whose cross-attention "
            "laconic shortens; for models that take sound in their prompt use laconic.compress."
        )
    return core


def columns_of_a_token(model: nn.Module) -> int:
    """Columns of the spectrogram that become one encoder token."""
    encoder = core_of(model).encoder
    return int(encoder.conv1.stride[0] * encoder.conv2.stride[0])


def token_seconds(model: nn.Module) -> float:
    """Seconds of sound that one encoder token stands for."""
    return columns_of_a_token(model) * FRAME


def window_seconds(model: nn.Module) -> float:
    """Seconds of sound in one window, which is all that the encoder hears at once."""
    return int(core_of(model).encoder.embed_positions.num_embeddings) * token_seconds(model)


def sound_tokens(model: nn.Module, features: Tensor, mask: Tensor | None = None) -> Tensor:
    """How many encoder tokens of each window are sound, not padding, int [B]; at least 1.

    Args:
        features: log-mel spectrograms, [B, mels, columns].
        mask: 1 at columns of sound, [B, columns]. Without it, padding is what the feature extractor makes of zeros, or what
            `generate` fills the last window of a long sound with: equal columns at the end, of one value. Digital silence
            at the end of a recording counts as padding, too.
    """
    if mask is None:
        last = features[..., -1:]
        sound = (features != last).any(1) | (last != last[:, :1]).any(1)
    else:
        sound = mask.bool()
    columns = torch.arange(1, sound.shape[1] + 1, device=sound.device)
    last = (sound * columns).amax(1)
    return last.add(columns_of_a_token(model) - 1).div(columns_of_a_token(model), rounding_mode="floor").clamp(min=1)

"""What only sound has: the time of every audio token, and how loud it is."""

from __future__ import annotations

import torch
from torch import Tensor

from laconic.families.audio.base import AudioFamily
from laconic.families.vision.spans import VisualSpan
from laconic.families.vision.visual import Visual


def seconds(visual: Visual, span: VisualSpan) -> Tensor:
    """When each token of a span begins, in seconds of its sound, fp32 [n]."""
    return torch.arange(len(span.tokens)) * family_of(visual).seconds(visual.model)


def energy(visual: Visual, span: VisualSpan) -> Tensor:
    """How loud each token of a span is: the mean of the spectrogram over the columns that it stands for, in the units of the
    feature extractor (Whisper's: log10 of mel power, divided by 4), fp32 [n]."""
    features = visual.calls[span.modality].arguments["input_features"]
    return loudness(features[span.image], family_of(visual).frames(visual.model))[: len(span.tokens)]


def loudness(features: Tensor, frames: int) -> Tensor:
    """Mean of a log-mel spectrogram [mels, columns] over blocks of `frames` columns, fp32 [columns // frames]."""
    return features.float().mean(0).unfold(0, frames, frames).mean(-1)


def family_of(visual: Visual) -> AudioFamily:
    """The family of a model whose sounds `visual` describes."""
    assert isinstance(visual.family, AudioFamily)
    return visual.family

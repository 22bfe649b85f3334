"""What an audio family knows about a model: a sound in a prompt is a span of one row of cells, one cell per token.

Spans of sound go the way of images (`families.vision`): the same hooks note what encoder and projector returned, so every
method that asks for no image grid acts on audio tokens, too. What only sound has is in `families.audio.sound`.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from laconic.errors import UnsupportedModelError
from laconic.families.vision.base import EncoderCall, VisionFamily
from laconic.families.vision.spans import Item, View, raster

FRAME = 0.01
"""Seconds of one column of the log-mel spectrogram that Whisper's feature extractor makes: 160 samples at 16 kHz. An encoder
that was trained on other columns says so in its configuration, as ``frame_seconds``."""


class AudioFamily(VisionFamily):
    """One family of models that read sound through a Whisper encoder and a projector. Stateless.

    Padding is in no span: models scatter the first tokens of each encoded window into the prompt, and a span numbers those.
    Neighbouring frames are pooled before the projector, so `merges` is True: methods work on features after it.
    """

    audio = True
    merges = True

    def tower(self, model: PreTrainedModel) -> Any:
        return self.core(model).audio_tower

    def pooling(self, model: PreTrainedModel) -> int:
        """Encoder tokens that become one token of the prompt."""
        raise NotImplementedError

    def frames(self, model: PreTrainedModel) -> int:
        """Columns of the spectrogram that become one token of the prompt."""
        tower = self.tower(model)
        return int(tower.conv1.stride[0] * tower.conv2.stride[0] * self.pooling(model))

    def seconds(self, model: PreTrainedModel) -> float:
        """Seconds of sound that one token of the prompt stands for."""
        return self.frames(model) * float(getattr(self.tower(model).config, "frame_seconds", FRAME))

    def items(self, model: PreTrainedModel, modality: str, call: EncoderCall, runs: list[list[int]]) -> list[Item]:
        """One item with one view per sound. Its `patches` number the rows of the encoder's output, [clips * window].

        Raises:
            UnsupportedModelError: sounds lie side by side in the prompt, so that their lengths cannot be told apart.
        """
        assert call.after is not None
        clips, window, _ = call.after.shape
        lengths = [length for row in runs for length in row]
        if len(lengths) != clips or max(lengths, default=0) > window:
            raise UnsupportedModelError(
                f"{clips} sounds of at most {window} tokens were encoded, but the prompt has runs of {lengths} audio "
                "placeholders; put a token between two sounds and expand placeholders, as the model's processor does."
            )
        call.lengths = lengths
        return [Item(n, (View(raster(1, n), raster(1, n, clip * window)),)) for clip, n in enumerate(lengths)]

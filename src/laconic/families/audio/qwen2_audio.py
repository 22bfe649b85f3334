"""Qwen2-Audio: a Whisper encoder whose tokens are averaged in pairs, 40 ms each, and one linear layer (arXiv 2407.10759)."""

from __future__ import annotations

from transformers import PreTrainedModel

from laconic.families.audio.base import AudioFamily
from laconic.families.vision.base import add


class Qwen2Audio(AudioFamily):
    """Windows of 30 s, 750 tokens at most; its processor writes one placeholder per token between two marks."""

    name = "Qwen2-Audio"
    model_types = ("qwen2_audio",)

    def pooling(self, model: PreTrainedModel) -> int:
        size = self.tower(model).avg_pooler.kernel_size
        return int(size[0] if isinstance(size, tuple) else size)


QWEN2_AUDIO = add(Qwen2Audio())

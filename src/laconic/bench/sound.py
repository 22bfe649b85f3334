"""Asking about sound, as about all media. No sample is hard."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from laconic.bench.media import MediaAsking
from laconic.errors import UnsupportedModelError
from laconic.prompts.batch import encode_sounds
from laconic.prompts.sound import hears


class SoundAsking(MediaAsking):
    """Asks about sounds in batches; see `MediaAsking`."""

    counted = "audio_tokens"

    def check(self, reader: Any, name: str) -> None:
        if not hears(reader):
            raise UnsupportedModelError(f"{name} takes no sound; give a model that hears, such as a Qwen2-Audio model.")

    def shape(self, inputs: Any) -> Hashable:
        """Length of the prompt and of the sound in it: a budget counts the tokens of the latter."""
        return super().shape(inputs), int(inputs["feature_attention_mask"].sum())

    def encoded(self, questions: list[str], media: list[Any]) -> Any:
        return encode_sounds(self.engine.reader, questions, media)

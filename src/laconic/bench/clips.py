"""Asking about videos, as about all media. No sample is hard."""

from __future__ import annotations

from typing import Any

from laconic.bench.media import MediaAsking
from laconic.errors import UnsupportedModelError
from laconic.prompts.batch import encode_clips


class ClipAsking(MediaAsking):
    """Asks about videos in batches, through the model's own video input; see `MediaAsking`."""

    def check(self, reader: Any, name: str) -> None:
        if getattr(reader, "video_processor", None) is None:
            raise UnsupportedModelError(
                f"{name} has no video input; give a model that has one, such as testbed/video or a LLaVA-OneVision model."
            )

    def encoded(self, questions: list[str], media: list[Any]) -> Any:
        return encode_clips(self.engine.reader, questions, media)

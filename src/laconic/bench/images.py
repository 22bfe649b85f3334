"""Asking about images: as about all media, and some samples are hard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from laconic.bench.asking import Asked, Reply
from laconic.bench.media import MediaAsking
from laconic.bench.store import Row
from laconic.errors import UnsupportedModelError
from laconic.media.coarse import FACTOR, coarse
from laconic.prompts.batch import encode

HARD = 0.5
"""A sample is hard if the uncompressed model scores less when the sides of its image are shortened; see `coarse`."""
MARKED = f"score below {HARD:g} uncompressed, the sides of the image {FACTOR} times shorter and enlarged again"


class ImageAsking(MediaAsking):
    """Asks about images in batches; see `MediaAsking`."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.settings["hard"] = MARKED

    def check(self, reader: Any, name: str) -> None:
        if getattr(reader, "image_processor", None) is None:
            raise UnsupportedModelError(
                f"{name} reads no images; give a vision language model of a family that laconic knows, or text tasks."
            )

    def encoded(self, questions: list[str], media: list[Any]) -> Any:
        return encode(self.engine.reader, questions, media)

    def mark(self, batch: Sequence[Asked]) -> None:
        if all(asked.hard is not None for asked in batch):
            return
        for asked, answer in zip(batch, self._answer(batch, None, change=coarse), strict=True):
            asked.hard = asked.task.score(answer.text, asked.sample) < HARD

    def describe(self, reply: Reply) -> Row:
        return {"hard": reply.asked.hard} | super().describe(reply)

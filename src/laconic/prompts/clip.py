"""A video as a model's own video input takes it: frames of one size, and their times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

UNIT = 1000
"""Processors count time in frames of a constant rate. Ours are milliseconds, so that any frame may last as it does."""


@dataclass(frozen=True)
class Clip:
    """The sampled frames of one video.

    Attributes:
        frames: of one size, in time order.
        times: when each appears, from the beginning of the video; `length`: of the whole; in seconds.
    """

    frames: Sequence[Image.Image]
    times: Sequence[float]
    length: float

    def metadata(self) -> dict[str, Any]:
        """What processors of transformers want to know: a video of `UNIT` frames a second, of which these were taken."""
        total = max(1, round(self.length * UNIT))
        numbers = [min(round(time * UNIT), total - 1) for time in self.times]
        return {"total_num_frames": total, "fps": float(UNIT), "duration": total / UNIT, "frames_indices": numbers}

"""A video as a model's own video input takes it: frames of one size, and their times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from laconic.prompts.reader import tokenizer_of
from laconic.prompts.rendering import render
from laconic.prompts.text import PromptError

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


def around(reader: Any, question: str, placeholder: int) -> tuple[Tensor, Tensor]:
    """The ids of a prompt that shows one video and asks `question`: those before the video, and those after it.

    Args:
        reader: of the model: a processor, or a tokenizer that has the chat template. `placeholder`: id that stands for a
            video.

    Raises:
        PromptError: a template that writes no place for a video.
    """
    text = render(reader, [{"type": "video"}, {"type": "text", "text": question}], "", None)
    ids = torch.tensor(tokenizer_of(reader).encode(text, add_special_tokens=False))
    at = (ids == placeholder).nonzero()[:, 0]
    if len(at) != 1:
        raise PromptError(f"the chat template of this model writes {len(at)} places for a video; it must write one.")
    return ids[: at[0]], ids[at[0] + 1 :]

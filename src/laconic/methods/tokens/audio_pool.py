"""Pooling of sound: means of neighbouring audio tokens, as Qwen2-Audio halves its rate (arXiv 2407.10759)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from laconic import checks
from laconic.method import register
from laconic.ops.similarity import means
from laconic.speech.contract import AudioMethod, Clip, Reduced
from laconic.stream.grids import windows


@register(
    "audio_pool",
    site="tokens",
    modality="audio",
    mechanism="pooling",
    principle="transformation",
    source="arXiv 2407.10759",
    query_aware=False,
    inferred="a budget gives the number of windows; a remainder makes a smaller window",
)
@dataclass(kw_only=True)
class AudioPool(AudioMethod):
    """Means of windows of neighbouring audio tokens, without overlap, independent of what was said.

    Args:
        stride: tokens of a window, where no budget is given; 1 changes nothing. A budget gives the number of windows.
        silence, strip, proportional: see `AudioMethod`.
    """

    stride: int = 2

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole(self, "stride", 1)

    @property
    def neutral(self) -> bool:
        return super().neutral or (self.budget_from_parameters and self.stride == 1)

    def reduce(self, clip: Clip) -> Reduced:
        n, device = len(clip), clip.tokens.device
        window = torch.arange(n) // self.stride if clip.count is None else windows(n, clip.count)
        window = window.to(device)
        number = torch.arange(int(window[-1]) + 1, device=device)
        first, end = (torch.searchsorted(window, number, right=right) for right in (False, True))
        middle = (first + end - 1) // 2
        mean, _ = means(clip.tokens, window, len(number))
        return Reduced(middle, middle[window], mean.to(clip.tokens.dtype))

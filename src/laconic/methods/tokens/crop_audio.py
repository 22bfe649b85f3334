"""One stretch of every sound: the other baseline of SpeechPrune (arXiv 2412.12009)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from laconic import checks
from laconic.method import register
from laconic.speech.contract import AudioMethod, Clip, Reduced
from laconic.stream.draws import drawn

PLACES = ("random", "start", "middle", "end")


@register("crop_audio", site="tokens", modality="audio", mechanism="pruning", source="baseline", query_aware=False)
@dataclass(kw_only=True)
class CropAudio(AudioMethod):
    """Keep one unbroken stretch of every sound.

    Args:
        place: "start", "middle", "end", or "random", which depends only on the seed and the number of tokens.
        seed: of the draw.
        silence, strip, proportional: see `AudioMethod`.
    """

    place: Literal["random", "start", "middle", "end"] = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, "place", *PLACES)

    def reduce(self, clip: Clip) -> Reduced:
        assert clip.count is not None
        n, count = len(clip), min(clip.count, len(clip))
        room = n - count
        first = {"start": 0, "middle": room // 2, "end": room}.get(self.place)
        if first is None:
            first = min(room, int(float(drawn(n, self.seed)[0]) * (room + 1)))
        return Reduced.keeping(torch.arange(first, first + count, device=clip.tokens.device), n)

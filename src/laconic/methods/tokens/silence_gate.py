"""A gate for silence: pauses become short, and what is loud stays. No publication describes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from laconic import checks
from laconic.method import register
from laconic.speech.contract import AudioMethod, Clip, Reduced
from laconic.stream.assemble import choose

UNIT = 40.0
"""Decibels of one unit of Whisper's spectrograms, (log10 of power + 4) / 4."""
QUIET = 0.1
"""The quantile of a sound's loudness that counts as its background."""


@register(
    "silence_gate",
    site="tokens",
    modality="audio",
    mechanism="pruning",
    source="laconic",
    query_aware=False,
    inferred="everything: no publication describes it",
)
@dataclass(kw_only=True)
class SilenceGate(AudioMethod):
    """Drop the tokens of pauses: quiet for at least `shortest` seconds on end; the first of each pause stays.

    Quiet is less than `margin` above the background, the 10th percentile of the sound's loudness, and more than `depth`
    below the loudest token. With a budget the quietest tokens go until it is met, wherever they are.

    Args:
        margin, depth: in decibels.
        shortest: of a pause, in seconds.
        silence, strip, proportional: see `AudioMethod`.
    """

    margin: float = 6.0
    depth: float = 20.0
    shortest: float = 0.3

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("margin", "depth", "shortest"):
            checks.at_least(self, name, 0)

    def reduce(self, clip: Clip) -> Reduced:
        if clip.count is not None:
            return Reduced.keeping(choose(clip.energy, clip.count, clip.must), len(clip), clip.energy)
        least = max(1, round(self.shortest / clip.seconds))
        stays = ~self.pauses(clip.energy, least) | clip.must
        return Reduced.keeping(stays.nonzero()[:, 0], len(clip), clip.energy)

    def pauses(self, energy: Tensor, least: int) -> Tensor:
        """Which tokens, of loudness `energy` [n], are in a pause of at least `least` tokens, without its first, bool [n]."""
        threshold = min(energy.quantile(QUIET) + self.margin / UNIT, energy.max() - self.depth / UNIT)
        quiet = energy <= threshold
        begins = quiet & ~torch.cat([quiet.new_zeros(1), quiet[:-1]])
        number = begins.long().cumsum(0)
        lengths = torch.zeros(int(number[-1]) + 1, dtype=torch.long, device=energy.device).index_add(0, number, quiet.long())
        return quiet & ~begins & (lengths[number] >= least)

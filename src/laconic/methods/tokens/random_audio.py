"""Audio tokens drawn uniformly: a baseline that every audio method must beat."""

from __future__ import annotations

from dataclasses import dataclass

from laconic.method import register
from laconic.speech.contract import AudioMethod, Clip, Reduced
from laconic.stream.assemble import choose
from laconic.stream.draws import drawn


@register("random_audio", site="tokens", modality="audio", mechanism="pruning", source="baseline", query_aware=False)
@dataclass(kw_only=True)
class RandomAudio(AudioMethod):
    """Keep a uniformly drawn subset of the tokens of every sound, in order.

    The draw depends only on the seed and the number of tokens.

    Args:
        seed: of the draw.
        silence, strip, proportional: see `AudioMethod`.
    """

    seed: int = 0

    def reduce(self, clip: Clip) -> Reduced:
        assert clip.count is not None
        draw = drawn(len(clip), self.seed).to(clip.tokens.device)
        return Reduced.keeping(choose(draw, clip.count, clip.must), len(clip))

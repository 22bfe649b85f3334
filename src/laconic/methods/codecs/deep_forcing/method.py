"""Deep Forcing: a rolling KV cache for long videos, half of it early frames that stay (arXiv 2512.05081)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from PIL import Image

from laconic import checks
from laconic.artifact import Artifact
from laconic.codec.images import shown
from laconic.codec.standalone import StandaloneMethod
from laconic.method import register
from laconic.methods.codecs.deep_forcing.network import FilmNet, Sizes
from laconic.methods.codecs.deep_forcing.window import Policy


@register(
    "deep_forcing",
    site="codecs",
    modality="video",
    mechanism="deep sinks, chosen history",
    source="arXiv 2512.05081",
    query_aware=True,
    training="trained",
    inferred="each chosen token is moved to its own frame; the small generator, which the paper's policy needs none of",
)
@dataclass(kw_only=True)
class DeepForcing(StandaloneMethod):
    """Make long videos in a window of constant size: early frames stay and stand next to the present, the middle is chosen.

    Defaults are the paper's proportions for a window of eight frames and chunks of one.

    Args:
        artifact: what `laconic fit deep_forcing` wrote: a file, a shipped name, or a Hub id.
        window, sink, kept, recent: frames, as `Policy` of the module `window` has them; its `budget` is `kept`.
        score: "attention", "random" or "recency".
        realign: "sink_top", "sink" or "none".
        steps: of Euler's method per frame.
    """

    window: int = 8
    sink: int = 4
    kept: int = 6
    recent: int = 1
    score: str = "attention"
    realign: str = "sink_top"
    steps: int = 4

    instead: ClassVar[str] = (
        "rolls the cache of its own video generator and changes no other model. Use film(frames) of the method."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole(self, "steps", 1)
        self.policy = Policy(self.window, self.sink, self.kept, self.recent, self.score, self.realign)

    def build(self, artifact: Artifact) -> FilmNet:
        return FilmNet(Sizes.of(artifact.data))

    def film(self, frames: int, seed: int = 0) -> list[Image.Image]:
        """So many frames; equal seeds give equal films.

        Raises:
            ValueError: not one frame.
        """
        if frames < 1:
            raise ValueError(f"{self.name}: frames={frames} must be at least 1.")
        sizes = self.network.sizes
        shape = 1, frames, sizes.side**2, 3 * sizes.patch**2
        made, _ = self.network.roll(
            torch.randn(shape, generator=torch.Generator().manual_seed(seed)), self.policy, self.steps
        )
        return shown(made[0])

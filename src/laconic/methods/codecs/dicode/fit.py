"""Training of DiCoDe on films of a flying shape: stage 1 trains the tokenizer, stage 2 the language model on its tokens."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from laconic.artifact import Artifact
from laconic.codec.images import pixels
from laconic.codec.vocabulary import word_ids
from laconic.fit.codec import CodecFit
from laconic.methods.codecs.dicode.network import DiCoDeNet, Sizes
from laconic.tasks.scenes.flights import FLIGHT_WORDS, Flight
from laconic.tasks.scenes.scenes import render


@dataclass(kw_only=True)
class DiCoDeFit(CodecFit):
    """A tokenizer of films of `size` pixels and `frames` a clip; with `start`, a language model over its tokens.

    Args:
        dropped: share of the clips whose ends are all-zero images, for guidance.
        tokens, numbers: of a border frame, and of a token.
        components: of the mixture; 1: a single Gaussian.
        clips: of a film in stage 2.
        unsaid: share of the texts of stage 2 that leave out where the shape flies.
        start: an artifact to begin with; stage 2, where the tokenizer stays as it is and a language model learns.
    """

    steps: int = 3000
    lr: float = 1e-3
    batch_size: int = 16
    size: int = 16
    patch: int = 4
    frames: int = 8
    tokens: int = 16
    numbers: int = 16
    width: int = 96
    depth: int = 6
    reader: int = 2
    heads: int = 4
    components: int = 4
    lm_width: int = 128
    lm_depth: int = 4
    text: int = 4
    borders: int = 9
    clips: int = 2
    dropped: float = 0.1
    unsaid: float = 0.5
    start: str | None = None

    method: ClassVar[str] = "dicode"
    explained_in: ClassVar[tuple[type, ...]] = (Sizes,)
    may_be_zero: ClassVar[tuple[str, ...]] = (*CodecFit.may_be_zero, "dropped", "unsaid")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clips >= self.borders:
            raise ValueError(f"dicode: clips={self.clips} have {self.clips + 1} borders, more than borders={self.borders}.")

    def build(self, model: Any, tokenizer: Any) -> nn.Module:
        own = {f.name: getattr(self, f.name) for f in fields(Sizes) if hasattr(self, f.name)}
        if self.start is None:
            self.net = DiCoDeNet(Sizes(**own))
            return self.net
        before = Artifact.load(self.start)
        first = before.restore(DiCoDeNet(Sizes.of(before.data["sizes"])))
        new = {name: own[name] for name in ("components", "lm_width", "lm_depth", "text", "borders")}
        self.net = DiCoDeNet(replace(first.sizes, **new, words=len(FLIGHT_WORDS)))
        found = {name: x for name, x in first.state_dict().items() if not name.startswith("language.")}
        self.net.load_state_dict(found, strict=False)
        assert self.net.language is not None
        self.net.requires_grad_(False)
        self.net.language.requires_grad_(True)
        return self.net

    def batch(self, step: int) -> Any:
        first = self.first(step)
        flights = [Flight(first + i, self.net.sizes.size) for i in range(self.batch_size)]
        return self.filmed(flights) if self.start is None else self.told(flights, self.unsaid)

    def filmed(self, flights: list[Flight]) -> Tensor:
        """One clip of each, [B, T, 3, size, size]."""
        frames = self.net.sizes.frames
        clips = np.concatenate([flight.frames(1, frames) for flight in flights])
        return pixels(clips).unflatten(0, (len(flights), frames))

    def told(self, flights: list[Flight], unsaid: float) -> tuple[Tensor, Tensor]:
        """Ids of what is said of each, and its border frames [B, clips + 1, 3, size, size]."""
        drawn = random.Random(f"told-{self.seed}-{flights[0].scene.texture}")
        texts = [flight.said(drawn.random() >= unsaid) for flight in flights]
        ids = torch.tensor([word_ids(text, FLIGHT_WORDS, self.net.sizes.text) for text in texts])
        borders = np.stack([render(flight.at(clip)) for flight in flights for clip in range(self.clips + 1)])
        return ids, pixels(borders).unflatten(0, (len(flights), self.clips + 1))

    def loss(self, batch: Any) -> Tensor:
        return self.net.loss(batch, self.dropped) if self.start is None else self.net.language_loss(*batch)

    def facts(self) -> dict[str, Any]:
        return {"sizes": self.net.sizes.as_dict(), "words": list(FLIGHT_WORDS)}

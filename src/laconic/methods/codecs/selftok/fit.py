"""Training of Selftok on small drawn scenes: stage 1 trains the tokenizer, stage 2 the renderer of its frozen codes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from laconic.artifact import Artifact
from laconic.codec.images import pixels
from laconic.fit.codec import CodecFit
from laconic.methods.codecs.selftok.network import SelfTokNet, Sizes
from laconic.tasks.scenes.small import small_scenes


@dataclass(kw_only=True)
class SelfTokFit(CodecFit):
    """A tokenizer of images of `size` pixels, whose decoder sees fewer codes as noise falls.

    Args:
        schedule: "stages", "uniform", "lognormal", or "all", which leaves the codes without an order.
        ends, owned: where each stage ends, from 0 to 1, and how many tokens are its own.
        dropped: share of the images whose codes are hidden.
        levels: of the FSQ; empty: a codebook of `codes` unit vectors, as in the paper.
        start: an artifact to begin with; stage 2, where encoder, codes and decoder stay as they are and a renderer learns,
            beginning as a copy of the decoder.
    """

    steps: int = 4000
    lr: float = 1e-3
    batch_size: int = 64
    size: int = 16
    patch: int = 2
    tokens: int = 16
    levels: tuple[int, ...] = (8, 8, 8)
    codes: int = 512
    code_width: int = 8
    schedule: str = "stages"
    ends: tuple[float, ...] = (0.5, 1.0)
    owned: tuple[int, ...] = (10, 6)
    image_width: int = 64
    query_width: int = 96
    encoder: int = 3
    width: int = 96
    depth: int = 4
    heads: int = 4
    dropped: float = 0.1
    start: str | None = None

    method: ClassVar[str] = "selftok"
    explained_in: ClassVar[tuple[type, ...]] = (Sizes,)
    may_be_zero: ClassVar[tuple[str, ...]] = (*CodecFit.may_be_zero, "dropped")

    def build(self, model: Any, tokenizer: Any) -> nn.Module:
        if self.start is None:
            own = {f.name: getattr(self, f.name) for f in fields(Sizes) if hasattr(self, f.name)}
            self.net = SelfTokNet(Sizes(**own))
            return self.net
        before = Artifact.load(self.start)
        first = before.restore(SelfTokNet(Sizes.of(before.data)))
        self.net = SelfTokNet(replace(first.sizes, renderer=True))
        self.net.load_state_dict(first.state_dict(), strict=False)
        assert self.net.renderer is not None
        if first.renderer is None:
            self.net.renderer.load_state_dict(first.decoder.state_dict(), strict=False)
        self.net.requires_grad_(False)
        self.net.renderer.requires_grad_(True)
        return self.net

    def batch(self, step: int) -> Tensor:
        first = self.first(step)
        return pixels(small_scenes(first, self.batch_size, self.net.sizes.size))

    def loss(self, batch: Tensor) -> Tensor:
        return self.net.loss(batch, self.dropped) if self.start is None else self.net.render_loss(batch)

    def facts(self) -> dict[str, Any]:
        return self.net.sizes.as_dict()

"""Selftok's network: queries, a quantiser, a decoder by rectified flow that sees fewer codes as noise falls, a renderer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.codec.ema_codebook import EMAVQ
from laconic.codec.flow import flow_loss, sampled
from laconic.codec.patches import patched, unpatched
from laconic.codec.quantisers import FSQ, Quantised, Quantiser
from laconic.methods.codecs.selftok.decoder import Decoder
from laconic.methods.codecs.selftok.encoder import RGB, Encoder
from laconic.methods.codecs.selftok.schedule import Schedule


@dataclass(frozen=True)
class Sizes:
    """What the network is made of.

    Attributes:
        size, patch: pixels of the image's side and of a patch's.
        tokens: codes K. `levels`: of the FSQ; empty: unit vectors, as in the paper. `codes`, `code_width`: how many those
            are, and their numbers.
        schedule, ends, owned: see `Schedule`.
        image_width, query_width, encoder: widths of the encoder's two streams, and its depth.
        width, depth: of the decoder. `heads`: of all.
        renderer: whether it has one.
    """

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
    renderer: bool = False

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Sizes:
        """From an artifact's data."""
        given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
        return cls(**given)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def side(self) -> int:
        return self.size // self.patch


class SelfTokNet(nn.Module):
    """Image [B, 3, size, size] in -1 .. 1 -> K codes -> image."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes = sizes
        self.schedule = Schedule(sizes.tokens, sizes.schedule, sizes.ends, sizes.owned)
        self.quantiser: Quantiser = FSQ(sizes.levels) if sizes.levels else EMAVQ(sizes.codes, sizes.code_width)
        queries = sizes.image_width, sizes.query_width, sizes.encoder, sizes.heads
        self.encoder = Encoder(sizes.tokens, sizes.patch, sizes.side, *queries, self.quantiser.width)
        self.decoder = self._decoder()
        self.renderer = self._decoder(masked=True) if sizes.renderer else None

    def _decoder(self, masked: bool = False) -> Decoder:
        s = self.sizes
        numbers = RGB * s.patch**2
        return Decoder(numbers, self.quantiser.width, s.tokens, s.side, s.width, s.depth, s.heads, masked)

    def quantise(self, images: Tensor) -> Quantised:
        """All K codes of images; token i stands at place i."""
        quantised: Quantised = self.quantiser(self.encoder(images))
        return quantised

    def loss(self, images: Tensor, dropped: float = 0.0) -> Tensor:
        """Squared error of the velocity at a time drawn evenly for each image, and the quantiser's loss.

        Args:
            dropped: share of the images whose codes are all hidden.
        """
        quantised = self.quantise(images)
        t = torch.rand(len(images), device=images.device)
        lost = (torch.rand(len(images), device=images.device) < dropped) & (t < 1)
        visible = self.schedule.visible(t) & ~lost[:, None]
        vectors = scaled_gradient(quantised.vectors, self.schedule.weights().to(images.device)[:, None])
        velocity = flow_loss(lambda x, at: self.decoder(x, at, vectors, visible), patched(images, self.sizes.patch), t)
        return velocity + quantised.loss

    def render_loss(self, images: Tensor) -> Tensor:
        """Squared error of the renderer, whose codes are frozen."""
        with torch.no_grad():
            vectors = self.quantise(images).vectors
        return F.mse_loss(self.render(vectors), images)

    def sample(self, vectors: Tensor, noise: Tensor, steps: int, given: Tensor | None = None) -> Tensor:
        """Images from the vectors [B, K, d] of all codes and from noise [B, n, 3 patch^2].

        Args:
            steps: of Euler's method; which codes are visible follows from the time of each.
            given: whether each code is there at all, [K] or [B, K]; None: all are.
        """
        known = torch.ones(self.sizes.tokens, dtype=torch.bool, device=vectors.device) if given is None else given

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            out: Tensor = self.decoder(x, t, vectors, self.schedule.visible(t) & known)
            return out

        return unpatched(sampled(velocity, noise, steps), self.sizes.patch, self.sizes.side)

    def render(self, vectors: Tensor) -> Tensor:
        """Images from the vectors [B, K, d] of all codes, in one pass of the renderer."""
        assert self.renderer is not None
        visible = torch.ones(vectors.shape[:2], dtype=torch.bool, device=vectors.device)
        return unpatched(self.renderer.render(vectors, visible), self.sizes.patch, self.sizes.side)

    def noise(self, count: int, seed: int) -> Tensor:
        """What `sample` begins with; equal seeds give equal noise."""
        s = self.sizes
        return torch.randn(count, s.side**2, RGB * s.patch**2, generator=torch.Generator().manual_seed(seed))


def scaled_gradient(x: Tensor, factor: Tensor) -> Tensor:
    """x, whose gradient is multiplied by `factor`."""
    return x.detach() + factor * (x - x.detach())

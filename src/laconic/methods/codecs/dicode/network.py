"""DiCoDe's network: the tokenizer (frames to tokens, tokens to clips), and the language model over its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.codec.patches import patched, unpatched
from laconic.methods.codecs.dicode.decoder import VideoDecoder
from laconic.methods.codecs.dicode.diffusion import ddim, guided, levels, noised
from laconic.methods.codecs.dicode.language import Language
from laconic.methods.codecs.dicode.resampler import RGB, Patches, Resampler


@dataclass(frozen=True)
class Sizes:
    """What the network is made of.

    Attributes:
        size, patch: pixels of a frame's side and of a patch's in the decoder. `frames`: of a clip, T.
        tokens, numbers: of a border frame, q, and of a token, d.
        width, depth: of the decoder. `reader`: layers of the resampler. `heads`: of all.
        components: of the mixture, M. `lm_width`, `lm_depth`, `text`, `borders`: of the language model: its size, the words
            of a text, and the border frames of a film at most.
        words: in the vocabulary of the language model; 0: there is none.

    Raises:
        ValueError: a size that does not divide.
    """

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
    words: int = 0

    def __post_init__(self) -> None:
        if self.frames % 2 or self.size % 4 or self.size % self.patch:
            raise ValueError(
                f"frames={self.frames}, size={self.size}, patch={self.patch}: frames must be even, and size a multiple of 4 "
                "and of patch."
            )

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Sizes:
        """From an artifact's data."""
        return cls(**data)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def side(self) -> int:
        return self.size // self.patch


class DiCoDeNet(nn.Module):
    """Clips [B, T, 3, size, size] in -1 .. 1 <-> the tokens [B, 2, q, d] of their first and last frames."""

    levels: Tensor

    def __init__(self, sizes: Sizes):
        super().__init__()
        s = self.sizes = sizes
        self.patches = Patches(s.size)
        self.resampler = Resampler(s.tokens, s.numbers, s.width, s.reader, s.heads)
        self.decoder = VideoDecoder(RGB * s.patch**2, s.numbers, s.frames, s.side, s.width, s.depth, s.heads)
        self.language = (
            Language(s.words, s.text, s.borders, s.tokens, s.numbers, s.components, s.lm_width, s.lm_depth, s.heads)
            if s.words
            else None
        )
        self.register_buffer("levels", levels(), persistent=False)

    @property
    def width(self) -> int:
        """Numbers of a token."""
        return self.sizes.numbers

    def tokens(self, frames: Tensor) -> Tensor:
        """Tokens [..., q, d] of frames [..., 3, size, size]."""
        found: Tensor = self.resampler(self.patches(frames.flatten(0, -4)))
        return found.unflatten(0, frames.shape[:-3])

    def loss(self, clips: Tensor, dropped: float = 0.0) -> Tensor:
        """Squared error of the velocity at a step drawn evenly for each clip.

        Args:
            dropped: share of the clips whose ends are all-zero images, for guidance.
        """
        lost = torch.rand(len(clips), device=clips.device) < dropped
        tokens = self.tokens(clips[:, [0, -1]] * ~lost[:, None, None, None, None])
        step = torch.randint(len(self.levels), (len(clips),), device=clips.device)
        x = patched(clips, self.sizes.patch)
        noisy, velocity = noised(x, torch.randn_like(x), self.levels[step])
        return F.mse_loss(self.decoder(noisy, (step + 1) / len(self.levels), tokens), velocity)

    def language_loss(self, ids: Tensor, frames: Tensor) -> Tensor:
        """Mean negative log-likelihood of the tokens of border frames [B, F, 3, size, size], which are frozen."""
        assert self.language is not None
        with torch.no_grad():
            tokens = self.tokens(frames)
        said = self.language(ids, tokens)
        return said.nll(tokens).mean()

    def decode(
        self,
        tokens: Tensor,
        noise: Tensor,
        steps: int = 50,
        eta: float = 1.0,
        guidance: float = 1.0,
        rescale: float = 0.7,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Clips from tokens [B, 2, q, d] and noise [B, T, n, 3 patch^2].

        Args:
            guidance: 1 for none; what is guided away from are the tokens of an all-zero image.
            generator: of the noise that DDIM's steps bring.
        """
        nothing = self.tokens(torch.zeros(1, 2, RGB, self.sizes.size, self.sizes.size, device=tokens.device))

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            if guidance == 1:
                out: Tensor = self.decoder(x, t, tokens)
                return out
            both = self.decoder(torch.cat([x, x]), torch.cat([t, t]), torch.cat([tokens, nothing.expand_as(tokens)]))
            told, untold = both.chunk(2)
            return guided(told, untold, guidance, rescale)

        return unpatched(ddim(velocity, noise, steps, eta, generator), self.sizes.patch, self.sizes.side)

    def noise(self, clips: int, generator: torch.Generator) -> Tensor:
        """What `decode` begins with."""
        s = self.sizes
        return torch.randn(clips, s.frames, s.side**2, RGB * s.patch**2, generator=generator)


def joined(clips: Tensor, borders: int = 1) -> Tensor:
    """Clips [n, T, ...] one after the other, whose borders are there in both: once, ``[n (T - 1) + 1, ...]``, or twice."""
    return torch.cat([clips[0], *clips[1:, 2 - borders :]])

"""One-D-Piece's network: TiTok's encoder and decoder around a quantiser, and the tail that training drops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from laconic.codec.patches import unpatched
from laconic.codec.quantisers import FSQ, VQ, Quantised, Quantiser

RGB = 3


@dataclass(frozen=True)
class Sizes:
    """What the network is made of.

    Attributes:
        size, patch: pixels of the image's side and of a patch's.
        tokens: latent tokens N. `width`, `depth`, `heads`: of both transformers.
        levels: of the FSQ; empty: a VQ, as in the paper. `codes`, `code_width`: its vectors, and their numbers.
    """

    size: int = 32
    patch: int = 8
    tokens: int = 64
    width: int = 96
    depth: int = 3
    heads: int = 4
    levels: tuple[int, ...] = (8, 8, 8, 8)
    codes: int = 4096
    code_width: int = 12

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Sizes:
        """From an artifact's data."""
        return cls(**{**data, "levels": tuple(data["levels"])})

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def patches(self) -> int:
        """P, cells of the image."""
        return (self.size // self.patch) ** 2


class OneDPieceNet(nn.Module):
    """Image [B, 3, size, size] in -1 .. 1 -> N codes -> image. While it is trained, the decoder sees a prefix of the codes.

    Encoder: patches with a class embedding, then N learned latents, through pre-norm transformer blocks; the last N outputs
    are projected and quantised. Decoder: a class embedding and P mask tokens, then the codes; the outputs at the mask tokens
    become pixels. Both attend in both directions.

    Args:
        drop: whether training cuts the tail (Tail Token Drop); False is the plain tokenizer it is compared with.
    """

    def __init__(self, sizes: Sizes, drop: bool = True):
        super().__init__()
        self.sizes, self.drop = sizes, drop
        w, patches, tokens = sizes.width, sizes.patches, sizes.tokens
        self.quantiser: Quantiser = FSQ(sizes.levels) if sizes.levels else VQ(sizes.codes, sizes.code_width)
        self.patchify = nn.Conv2d(RGB, w, sizes.patch, sizes.patch)
        self.encoder, self.decoder = _transformer(sizes), _transformer(sizes)
        self.read, self.write = nn.Linear(w, self.quantiser.width), nn.Linear(self.quantiser.width, w)
        self.head = nn.Sequential(nn.Linear(w, 2 * w), nn.Tanh(), nn.Linear(2 * w, RGB * sizes.patch**2))
        self.latents = _embedding(tokens, w)
        self.seen_class, self.seen_place, self.latent_place = (
            _embedding(1, w),
            _embedding(patches + 1, w),
            _embedding(tokens, w),
        )
        self.drawn_class, self.drawn_place, self.code_place = (
            _embedding(1, w),
            _embedding(patches + 1, w),
            _embedding(tokens, w),
        )
        self.mask = _embedding(1, w)

    def quantise(self, images: Tensor) -> Quantised:
        """All N codes of images; vectors are [B, N, d]."""
        seen = self.patchify(images).flatten(2).mT
        seen = torch.cat([self.seen_class.expand(len(seen), -1, -1), seen], 1) + self.seen_place
        latents = (self.latents + self.latent_place).expand(len(seen), -1, -1)
        hidden = self.encoder(torch.cat([seen, latents], 1))[:, -self.sizes.tokens :]
        quantised: Quantised = self.quantiser(self.read(hidden))
        return quantised

    def draw(self, vectors: Tensor) -> Tensor:
        """Images from the vectors [B, k, d] of the first k codes."""
        codes = self.write(vectors) + self.code_place[: vectors.shape[1]]
        canvas = torch.cat([self.drawn_class, self.mask.expand(self.sizes.patches, -1)]) + self.drawn_place
        hidden = self.decoder(torch.cat([canvas.expand(len(codes), -1, -1), codes], 1))
        cells, sizes = self.head(hidden[:, 1 : 1 + self.sizes.patches]), self.sizes
        return unpatched(cells, sizes.patch, sizes.size // sizes.patch)

    def kept(self) -> int:
        """How many codes the decoder sees: in training a number drawn evenly from 1 .. N, one for a whole batch; else N."""
        n = self.sizes.tokens
        return int(torch.randint(1, n + 1, ())) if self.training and self.drop else n

    def forward(self, images: Tensor, length: int | None = None) -> tuple[Tensor, Tensor]:
        """Images drawn from the first `length` codes (None: see `kept`), and the quantiser's loss."""
        quantised = self.quantise(images)
        return self.draw(quantised.vectors[:, : self.kept() if length is None else length]), quantised.loss


def _transformer(sizes: Sizes) -> nn.Module:
    """Norm, pre-norm blocks (MLP x 4, GELU), norm."""
    w = sizes.width
    block = nn.TransformerEncoderLayer(w, sizes.heads, 4 * w, 0.0, "gelu", batch_first=True, norm_first=True)
    blocks = nn.TransformerEncoder(block, sizes.depth, nn.LayerNorm(w), enable_nested_tensor=False)
    return nn.Sequential(nn.LayerNorm(w), blocks)


def _embedding(rows: int, width: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, width) * width**-0.5)

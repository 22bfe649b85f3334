"""E-MMDiT's network: full tokens, few tokens, full tokens; and what a pass costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from laconic.codec.embeddings import frequencies, sincos
from laconic.methods.codecs.e_mmdit.blocks import JointBlock, pattern
from laconic.methods.codecs.e_mmdit.tokens import Compressor, Reconstructor

FREQUENCIES = 256
"""Numbers of the sinusoidal embedding of the time."""


@dataclass(frozen=True)
class Sizes:
    """What the network is made of; the defaults are those of the release (Nitro-E, 512 pixels).

    Attributes:
        side: of the latent's grid. `channels`: of a latent. `width`, `heads`, `ffn`: of a block.
        groups: joint blocks before, on and after the compressed tokens.
        text_width, text: numbers of a text token, and how many there are.
        ratios: of the compressor's paths; none: the middle runs on all tokens.
        slices, runs: of Alternating Subregion Attention; 1 slice: full attention everywhere.
        reinforce: whether positions are added again after the reconstruction.
    """

    side: int = 16
    channels: int = 32
    width: int = 768
    heads: int = 24
    ffn: int = 3
    groups: tuple[int, int, int] = (4, 16, 4)
    text_width: int = 2048
    text: int = 128
    ratios: tuple[int, ...] = (2, 4)
    slices: int = 4
    runs: tuple[int, int] = (1, 4)
    reinforce: bool = True

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Sizes:
        """From an artifact's data."""
        given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
        return cls(**given)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def image_tokens(self) -> tuple[int, int, int]:
        """Image tokens of each group."""
        full = self.side**2
        return full, sum((self.side // r) ** 2 for r in self.ratios) or full, full

    def flops(self) -> int:
        """Multiplications and additions of one pass of one image: every product of matrices, attention included."""
        d, total, block = self.width, 0, 0
        for group, (blocks, image) in enumerate(zip(self.groups, self.image_tokens(), strict=True)):
            for i in range(blocks):
                last = group == 2 and i == blocks - 1
                both = image + self.text
                full = 8 + 4 * self.ffn  # 2 x (q, k, v, out, and the FFN's two), in d^2 per token
                total += d * d * (image * full + self.text * (6 if last else full))
                total += 4 * d * both**2 // pattern(block, self.slices, self.runs).slices
                block += 1
        full = self.side**2
        total += 2 * d * (full * self.channels * 2 + self.text * self.text_width + FREQUENCIES + d + 6 * d)
        for r in self.ratios:
            total += 2 * d * d * (full + full // r**2)  # unshuffled, r^2 d numbers of each of full / r^2 tokens; then d
            total += 2 * d * d * (full // r**2 + full)  # shuffled, d / r^2 numbers of each of full tokens; then d
        if self.ratios:
            total += 2 * d * d * full * (len(self.ratios) + 2)
        return total


class EMMDiTNet(nn.Module):
    """The velocity of a latent [B, channels, side, side] at time t [B] (1 is noise), given text [B, m, text_width]."""

    positions: Tensor

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes, d = sizes, sizes.width
        self.embed, self.read_text = nn.Conv2d(sizes.channels, d, 1), nn.Linear(sizes.text_width, d)
        self.time = nn.Sequential(nn.Linear(FREQUENCIES, d), nn.SiLU(), nn.Linear(d, d))
        self.modulate = nn.Sequential(nn.SiLU(), nn.Linear(d, 6 * d))
        self.blocks = nn.ModuleList(
            JointBlock(d, sizes.heads, sizes.ffn, pattern(i, sizes.slices, sizes.runs), i == sum(sizes.groups) - 1)
            for i in range(sum(sizes.groups))
        )
        self.compress = Compressor(d, sizes.side, sizes.ratios) if sizes.ratios else None
        self.restore = Reconstructor(d, sizes.side, sizes.ratios) if sizes.ratios else None
        self.norm, self.out = nn.LayerNorm(d, elementwise_affine=False, eps=1e-6), nn.Linear(d, sizes.channels)
        self.register_buffer("positions", sincos(d, sizes.side), persistent=False)

    def forward(self, latent: Tensor, t: Tensor, text: Tensor) -> Tensor:
        first, middle, _ = self.sizes.groups
        image = self.embed(latent).flatten(2).mT + self.positions
        words, t6 = self.read_text(text), self.modulate(self.time(frequencies(t, FREQUENCIES))).unflatten(1, (6, -1))
        for block in self.blocks[:first]:
            image, words = block(image, words, t6)
        before = image
        if self.compress is not None:
            image = self.compress(image)
        for block in self.blocks[first : first + middle]:
            image, words = block(image, words, t6)
        if self.restore is not None:
            image = self.restore(image, before)
            image = image + self.positions if self.sizes.reinforce else image
        for block in self.blocks[first + middle :]:
            image, words = block(image, words, t6)
        velocity: Tensor = self.out(self.norm(image)).mT.unflatten(2, (self.sizes.side, self.sizes.side))
        return velocity

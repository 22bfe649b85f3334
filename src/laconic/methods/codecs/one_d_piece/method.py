"""One-D-Piece: an image as a sequence of tokens of which any prefix decodes (arXiv 2501.10064)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from PIL import Image
from torch import Tensor

from laconic.artifact import Artifact
from laconic.codec.contract import CodecMethod
from laconic.codec.images import check_image, pixels, shown
from laconic.method import register
from laconic.methods.codecs.one_d_piece.network import OneDPieceNet, Sizes


@register(
    "one_d_piece",
    site="codecs",
    modality="image",
    mechanism="1D tokens, any prefix",
    source="arXiv 2501.10064",
    query_aware=False,
    training="trained",
    inferred="pixels are predicted directly, without the codes of another tokenizer; how the length of one image is chosen",
)
@dataclass(kw_only=True)
class OneDPiece(CodecMethod):
    """Image tokenizer whose first tokens hold the most: it was trained with the tail of its tokens cut off at random.

    Learned latents read an image and become codes; a decoder makes an image of mask tokens and of as many codes as it is
    given. The encoder always computes all of them, so a shorter code is no cheaper to make.

    Args:
        artifact: what `laconic fit one_d_piece` wrote: a file, a shipped name, or a Hub id.
    """

    preferred: ClassVar[bool] = True

    def build(self, artifact: Artifact) -> OneDPieceNet:
        return OneDPieceNet(Sizes.of(artifact.data))

    @property
    def most(self) -> int:
        return int(self.network.sizes.tokens)

    @property
    def alphabet(self) -> int | None:
        return int(self.network.quantiser.codes)

    @property
    def size(self) -> tuple[int, int]:
        return self.network.sizes.size, self.network.sizes.size

    def read(self, media: Image.Image) -> tuple[Tensor, tuple[int, ...]]:
        image = check_image(self.name, media, self.size)
        return self.network.quantise(pixels([image])).indices[0], (image.height, image.width, 3)

    def draw(self, values: Tensor, shape: tuple[int, ...]) -> Image.Image:
        return shown(self.network.draw(self.network.quantiser.vectors(values)[None]))[0]

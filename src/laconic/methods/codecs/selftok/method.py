"""Selftok: image tokens in the order in which a diffusion decoder consumes them (arXiv 2505.07538)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from laconic import checks
from laconic.artifact import Artifact
from laconic.codec.contract import CodecMethod
from laconic.codec.images import check_image, pixels, shown
from laconic.errors import ArtifactError
from laconic.method import register
from laconic.methods.codecs.selftok.network import SelfTokNet, Sizes


@register(
    "selftok",
    site="codecs",
    modality="image",
    mechanism="1D tokens, in diffusion order",
    source="arXiv 2505.07538",
    query_aware=False,
    training="trained",
    inferred="pixels instead of an autoencoder's latents; the renderer's loss; what a first part of the tokens decodes to",
)
@dataclass(kw_only=True)
class SelfTok(CodecMethod):
    """Image tokenizer whose tokens are needed one after the other as an image is denoised, the coarse ones first.

    The decoder starts from noise, where it sees all tokens; the less noise is left, the fewer it sees, since the half-made
    image carries the rest. Codes are in the order for a language model: those that noise alone needs come first. From a
    first part of them the decoder makes the coarse image, and invents the detail.

    Args:
        artifact: what `laconic fit selftok` wrote: a file, a shipped name, or a Hub id.
        decoder: "diffusion"; "renderer", which makes the image in one pass from all tokens; "auto": the renderer where the
            artifact has one and all tokens are given, else diffusion.
        steps: of Euler's method in the diffusion.
        seed: of its noise.
    """

    decoder: str = "auto"
    steps: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, "decoder", "auto", "diffusion", "renderer")
        checks.whole(self, "steps", 1)
        checks.whole(self, "seed")

    def build(self, artifact: Artifact) -> SelfTokNet:
        return SelfTokNet(Sizes.of(artifact.data))

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
        indices = self.network.quantise(pixels([image])).indices[0]
        return indices[self.network.schedule.order()], (image.height, image.width, 3)

    def draw(self, values: Tensor, shape: tuple[int, ...]) -> Image.Image:
        net: SelfTokNet = self.network
        places = net.schedule.order()[: len(values)]
        indices, given = torch.zeros(self.most, dtype=torch.int64), torch.zeros(self.most, dtype=torch.bool)
        indices[places], given[places] = values, True
        vectors = net.quantiser.vectors(indices)[None]
        if self._rendered(bool(given.all())):
            return shown(net.render(vectors))[0]
        return shown(net.sample(vectors, net.noise(1, self.seed), self.steps, given))[0]

    def _rendered(self, whole: bool) -> bool:
        """Whether the renderer decodes.

        Raises:
            ArtifactError: it is asked for, and the artifact has none. ValueError: or not all tokens are given.
        """
        has = self.network.renderer is not None
        if self.decoder == "renderer" and not has:
            raise ArtifactError(
                f"{self.name}: decoder='renderer', but this artifact has none; train one with "
                f"`laconic fit {self.name} --set start=FILE`, or use decoder='diffusion'."
            )
        if self.decoder == "renderer" and not whole:
            raise ValueError(
                f"{self.name}: decoder='renderer' needs all {self.most} tokens; use decoder='diffusion' for fewer."
            )
        return has and whole and self.decoder != "diffusion"

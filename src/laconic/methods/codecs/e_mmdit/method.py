"""E-MMDiT: a text-to-image diffusion transformer whose middle runs on fewer tokens (arXiv 2510.27135)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image

from laconic import checks
from laconic.artifact import Artifact
from laconic.codec.generator import GeneratorMethod
from laconic.codec.images import shown
from laconic.method import register
from laconic.methods.codecs.e_mmdit.drawing import Drawing
from laconic.methods.codecs.e_mmdit.network import Sizes


@register(
    "e_mmdit",
    site="codecs",
    modality="image",
    mechanism="multi-path compression, subregion attention",
    source="arXiv 2510.27135",
    query_aware=False,
    training="trained",
    inferred="the small generator: patches of pixels for the autoencoder, a table of words for the language model",
)
@dataclass(kw_only=True)
class EMMDiT(GeneratorMethod):
    """Draw images with a transformer that has few tokens in its middle: two coarser copies of the image instead of all.

    Args:
        artifact: what `laconic fit e_mmdit` wrote: a file, a shipped name, or a Hub id.
        steps: of Euler's method.
        guidance: how much more the text counts than without it; 1 for none.
    """

    steps: int = 20
    guidance: float = 4.5

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole(self, "steps", 1)
        checks.at_least(self, "guidance", 0)

    def build(self, artifact: Artifact) -> Drawing:
        return Drawing(Sizes.of(artifact.data["sizes"]), artifact.data["words"], artifact.data["patch"])

    def generate(self, prompt: str, seed: int = 0) -> Image.Image:
        drawing = self.network
        side, channels = drawing.sizes.side, drawing.sizes.channels
        noise = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(seed))
        return shown(drawing.draw(torch.tensor([drawing.ids(prompt)]), noise, self.steps, self.guidance))[0]

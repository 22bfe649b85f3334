"""Uni-3DAR: points in space as the tokens of an octree (arXiv 2503.16278)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from laconic import checks
from laconic.artifact import Artifact
from laconic.codec.contract import CodecMethod
from laconic.errors import MediaError
from laconic.media.points import Points, load_points, psnr
from laconic.method import register
from laconic.methods.codecs.uni_3dar.network import Sizes, Uni3DARNet
from laconic.methods.codecs.uni_3dar.numbering import alphabet, numbered, regrown
from laconic.methods.codecs.uni_3dar.octree import Growth, grown, points
from laconic.methods.codecs.uni_3dar.sampling import grow, sampler

UNDECIDED = "X"
"""Name of a point that stands for a part of the tree that is not there."""


@register(
    "uni_3dar",
    site="codecs",
    modality="3D",
    mechanism="octree tokens, masked next token",
    source="arXiv 2503.16278",
    query_aware=False,
    training="trained",
    inferred="of several points in one cell the first one by place and kind stays (published: a random one); a first "
    "part of the tokens decodes to the middles of the nodes that are not split yet",
)
@dataclass(kw_only=True)
class Uni3DAR(CodecMethod):
    """Points as an octree: one token for each occupied cube says which of its eight children are occupied.

    Tokens come level by level, so the first ones are a coarse shape; at a cell of the grid the last ones say kind and exact
    place. Encoding and decoding use the grid alone; `sample` draws new structures with the trained transformer.

    Args:
        artifact: what `laconic fit uni_3dar` wrote: a file, a shipped name, or a Hub id.
        temperature: of `sample`; below 1 for likelier structures.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.at_least(self, "temperature", 0.01)

    def build(self, artifact: Artifact) -> Uni3DARNet:
        network = Uni3DARNet(Sizes(**artifact.data["sizes"]))
        network.names = tuple(artifact.data["names"])  # type: ignore[assignment]
        return network

    @property
    def names(self) -> tuple[str, ...]:
        """Of the kinds of points that it knows."""
        found: tuple[str, ...] = self.network.names
        return found

    @property
    def most(self) -> int:
        return (8 ** (self.network.sizes.levels + 1) - 1) // 7

    @property
    def alphabet(self) -> int | None:
        return alphabet(self.network.sizes.grid, len(self.names))

    def open(self, path: str | Path) -> Points:
        return load_points(path)

    def quality(self, drawn: Points, wanted: Points) -> float:
        """Point-to-point PSNR in dB, both clouds with their mean in the origin."""
        return psnr(*(Points(one.names, one.at - one.at.mean(0)) for one in (drawn, wanted)))

    def read(self, media: Points) -> tuple[Tensor, tuple[int, ...]]:
        if not isinstance(media, Points):
            raise MediaError(f"{self.name} reads laconic.media.points.Points, not {type(media).__name__}; see load_points.")
        if unknown := sorted(set(media.names) - set(self.names)):
            raise MediaError(f"{self.name}: {unknown[0]!r} is no kind that it was trained on: {', '.join(self.names)}.")
        kinds = torch.tensor([self.names.index(name) for name in media.names])
        grid = self.network.sizes.grid
        return numbered(grown(media.at, kinds, grid), grid), (len(media), 3)

    def draw(self, values: Tensor, shape: tuple[int, ...]) -> Points:
        return self._cloud(regrown(values, self.network.sizes.grid))

    def sample(self, seed: int = 0, most: int = 512) -> Points | None:
        """A new structure, its middle near the origin; None where `most` tokens do not end it. Equal seeds, equal ones."""
        choose, _ = sampler(self.network, self.temperature, seed)
        growth = grow(self.network, choose, most)
        return None if growth is None else self._cloud(growth)

    def _cloud(self, growth: Growth) -> Points:
        at, kinds = points(growth, self.network.sizes.grid)
        return Points(tuple(UNDECIDED if kind is None else self.names[kind] for kind in kinds), at)

"""Training of Uni-3DAR on structures made by script, or on a folder of XYZ files."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from laconic.errors import MediaError
from laconic.fit.codec import CodecFit
from laconic.media.points import Points, load_points
from laconic.methods.codecs.uni_3dar.entries import Entries, Writer, batched
from laconic.methods.codecs.uni_3dar.network import Sizes, Uni3DARNet
from laconic.methods.codecs.uni_3dar.octree import grown
from laconic.methods.codecs.uni_3dar.shapes import molecule, shell, turned
from laconic.tasks.task import EVALUATION_SEED

SHAPES = {"molecules": (molecule, ("C", "N", "O", "S")), "shells": (shell, ("sphere", "box", "ring"))}
"""What is made by script: from a seed to places and kinds, and the kinds' names."""


@dataclass(kw_only=True)
class Uni3DARFit(CodecFit):
    """The transformer over octrees, and the grid that they are of.

    Args:
        data: a folder of XYZ files; empty for structures made by script.
        shapes: which those are: molecules (cells of 0.4, 8 bins, 5 levels) or shells (set cell=1, bins=1, levels=4).
        rotate: turn every structure at random; not for shells, whose voxels have a direction.
        jitter: spread of the noise on the origin of the grid, as a share of a cell.
        offsets: weight of the loss on places within cells; kinds and children have 1.
        dropped: most of the entries of the last level above the cells that are left out, a share drawn for each structure.
    """

    data: str = ""
    shapes: str = "molecules"
    rotate: bool = True
    jitter: float = 0.5
    offsets: float = 0.1
    dropped: float = 0.1
    levels: int = 5
    cell: float = 0.4
    bins: int = 8
    width: int = 128
    depth: int = 4
    heads: int = 4
    doubled: bool = True
    steps: int = 2000
    lr: float = 1e-3

    method: ClassVar[str] = "uni_3dar"
    explained_in: ClassVar[tuple[type, ...]] = (Sizes,)
    may_be_zero: ClassVar[tuple[str, ...]] = ("seed", "jitter", "dropped", "warmup")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shapes not in SHAPES:
            raise ValueError(f"uni_3dar: shapes={self.shapes!r} is unknown; use {' or '.join(SHAPES)}.")

    def build(self, model: Any, tokenizer: Any) -> Uni3DARNet:
        self.made, self.names = SHAPES[self.shapes]
        self.known: list[Points] = []
        if self.data:
            self.known = [load_points(path) for path in sorted(Path(self.data).glob("*.xyz"))]
            if not self.known:
                raise MediaError(f"uni_3dar: {self.data} holds no .xyz files; give a folder that does.")
            self.names = tuple(sorted({name for one in self.known for name in one.names}))
        shared = {name: getattr(self, name) for name in Sizes.__dataclass_fields__ if hasattr(self, name)}
        self.net = Uni3DARNet(Sizes(**shared, kinds=len(self.names)))
        self.writer = Writer(self.net.sizes.grid, len(self.names), self.doubled)
        return self.net

    def structure(self, number: int) -> tuple[Tensor, Tensor]:
        """Places and kinds of a structure, before it is moved."""
        if self.known:
            one = self.known[number % len(self.known)]
            return one.at, torch.tensor([self.names.index(name) for name in one.names])
        return self.made(number)

    def batch(self, step: int) -> Entries:
        first = self.first(step)
        return self.examples(range(first, first + self.batch_size), moved=True)

    def examples(self, numbers: range, moved: bool = False) -> Entries:
        """Entries of structures; `moved`: with all that a training varies, drawn by their numbers."""
        rows = []
        for number in numbers:
            rng = random.Random(f"{self.seed}-{number}")
            at, kinds = self.structure(number)
            shift = None
            if moved:
                at = turned(at.double(), rng) if self.rotate else at.double()
                at = at + torch.tensor([rng.gauss(0, self.jitter * self.cell) for _ in range(3)])
                shift = torch.tensor([rng.randint(-1, 1) for _ in range(3)])
            growth = grown(at, kinds, self.net.sizes.grid, shift)
            if moved and self.dropped:
                share = rng.uniform(0, self.dropped)
                growth.chosen = [one for one in growth.chosen if one[0].level != 1 or rng.random() >= share]
            rows.append(self.writer.whole(growth))
        return batched(rows, self.writer.vocabulary)

    def loss(self, batch: Entries) -> Tensor:
        children, kinds, bins = self.net.losses(batch)
        return (children + kinds + self.offsets * bins) / (batch.targets[..., 0] >= 0).sum()

    @torch.no_grad()
    def progress(self) -> str:
        held = self.examples(range(EVALUATION_SEED - 16, EVALUATION_SEED)) if not self.known else self.batch(0)
        nats = sum(float(x) for x in self.net.losses(held)) / len(held.types)
        return f"{nats / math.log(2):.1f} bits a structure"

    def facts(self) -> dict[str, Any]:
        return {"sizes": self.net.sizes.as_dict(), "names": list(self.names)}

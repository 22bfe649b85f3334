"""Uni-3DAR's transformer: causal, rotary in three dimensions, with heads for children and for points."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.methods.codecs.uni_3dar.entries import Entries, Vocabulary
from laconic.methods.codecs.uni_3dar.numbering import TREE
from laconic.methods.codecs.uni_3dar.octree import Grid

Past = list[tuple[Tensor, Tensor]]
"""Keys and values of every block, [B, H, T, d]."""


@dataclass(frozen=True)
class Sizes:
    """What grid and network are made of.

    Attributes:
        levels: of the octree. `cell`: side of its smallest cells, in the unit of the points. `bins`: places along an axis
            within a cell.
        kinds: of points.
        width, depth, heads: of the transformer.
        doubled: whether every node has a mask entry before it, as published.
    """

    levels: int = 5
    cell: float = 0.4
    bins: int = 8
    kinds: int = 4
    width: int = 128
    depth: int = 4
    heads: int = 4
    doubled: bool = True

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads) or self.width // self.heads < 6:
            raise ValueError(f"width={self.width} must be a multiple of twice heads={self.heads}, 6 or more for each head.")

    @property
    def grid(self) -> Grid:
        return Grid(self.levels, self.cell, self.bins)

    def as_dict(self) -> dict[str, Any]:
        """For an artifact."""
        return asdict(self)


class Block(nn.Module):
    """RMSNorm, causal attention and SwiGLU, each added to the stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, hidden = heads, 8 * width // 3
        self.norms = nn.ModuleList([nn.RMSNorm(width), nn.RMSNorm(width)])
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 2 * hidden, bias=False), nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, phases: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x [B, T, D] after the entries in `past` -> the same shape, and keys and values of all entries so far."""
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotated(q, phases), rotated(k, phases)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        new, all_ = q.shape[2], k.shape[2]
        mask = torch.ones(new, all_, dtype=torch.bool, device=x.device).tril(all_ - new)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))
        gate, up = self.up(self.norms[1](x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up), (k, v)


class PointHead(nn.Module):
    """Kind, then bin by bin: each head sees what was chosen before it."""

    def __init__(self, width: int, choices: tuple[int, ...]) -> None:
        super().__init__()
        self.heads = nn.ModuleList([head(width, count) for count in choices])
        self.chosen = nn.ModuleList([nn.Embedding(count, width) for count in choices[:-1]])

    def forward(self, hidden: Tensor, targets: Tensor) -> list[Tensor]:
        """Logits of all four choices at states [N, D], those before each taken from `targets` [N, 4]."""
        found = []
        for i, one in enumerate(self.heads):
            found.append(one(hidden))
            if i < len(self.chosen):
                hidden = hidden + self.chosen[i](targets[:, i])
        return found


class Uni3DARNet(nn.Module):
    """Reads entries; predicts at its mask entries."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes, width = sizes, sizes.width
        self.types = nn.Embedding(Vocabulary(sizes.kinds).size, width)
        self.bins = nn.ModuleList([nn.Embedding(sizes.bins, width) for _ in range(3)])
        self.levels = nn.Embedding(sizes.levels + 2, width)
        self.blocks = nn.ModuleList([Block(width, sizes.heads) for _ in range(sizes.depth)])
        self.norm = nn.RMSNorm(width)
        self.tree = head(width, TREE)
        self.point = PointHead(width, (sizes.kinds, sizes.bins, sizes.bins, sizes.bins))
        for embedding in (self.types, self.levels, *self.bins, *self.point.chosen):
            nn.init.normal_(embedding.weight, std=0.02)  # type: ignore[arg-type]

    def forward(self, entries: Entries, past: Past | None = None) -> tuple[Tensor, Past]:
        """States [B, T, D] of entries after those in `past`, and keys and values of all."""
        x = self.types(entries.types) + self.levels(entries.levels)
        for axis, table in enumerate(self.bins):
            x = x + table(entries.bins[..., axis])
        phases, kept = rotations(entries.at, self.sizes.width // self.sizes.heads), []
        for i, block in enumerate(self.blocks):
            x, pair = block(x, phases, None if past is None else past[i])
            kept.append(pair)
        return self.norm(x), kept

    def losses(self, entries: Entries) -> tuple[Tensor, Tensor, Tensor]:
        """Sums of the cross-entropies of children, kinds and bins over a batch, in nats."""
        hidden, _ = self(entries)
        trees, atoms = entries.trees, entries.atoms
        children = F.cross_entropy(self.tree(hidden[trees]), entries.targets[trees][:, 0], reduction="sum")
        wanted = entries.targets[atoms]
        each = [
            F.cross_entropy(logits, wanted[:, i], reduction="sum")
            for i, logits in enumerate(self.point(hidden[atoms], wanted))
        ]
        return children, each[0], each[1] + each[2] + each[3]


def head(width: int, choices: int) -> nn.Sequential:
    """From states to logits."""
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, choices))


def rotations(at: Tensor, size: int) -> Tensor:
    """Angles [B, T, size / 2] of places [B, T, 3]: a third of them turns with each axis, at equal frequencies; those left
    over do not turn. In fp32, since places reach thousands."""
    each = size // 2 // 3
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(each, device=at.device) / each)
    angles = (at.float()[..., None] * frequencies).flatten(-2)
    return F.pad(angles, (0, size // 2 - 3 * each))


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Queries or keys [B, H, T, d], each pair (i, i + d / 2) turned by its angle [B, T, d / 2]."""
    cos, sin = angles.cos()[:, None].to(x.dtype), angles.sin()[:, None].to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

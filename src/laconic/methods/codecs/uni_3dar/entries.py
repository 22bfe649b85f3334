"""The sequence of an octree: every node twice, first where it is, then what was chosen at it (arXiv 2503.16278)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from laconic.methods.codecs.uni_3dar.numbering import TREE
from laconic.methods.codecs.uni_3dar.octree import Atom, Choice, Grid, Growth, Node

IGNORED = -100
"""A target that does not count."""


@dataclass(frozen=True)
class Vocabulary:
    """Types of entries: kinds of points, then children of nodes, then the two special ones."""

    kinds: int

    @property
    def mask(self) -> int:
        """Says where the next node is, and not what was chosen at it."""
        return self.kinds + TREE

    @property
    def closing(self) -> int:
        """Ends the sequence."""
        return self.mask + 1

    @property
    def size(self) -> int:
        return self.closing + 1

    def of(self, choice: Choice) -> int:
        """The type of a choice."""
        return choice.kind if isinstance(choice, Atom) else self.kinds + choice - 1


@dataclass(frozen=True)
class Entries:
    """What the network reads, for B sequences of T entries, padded on the right.

    Attributes:
        types [B, T]; bins [B, T, 3] of points, the middle one elsewhere; levels [B, T], counted from the closing entries' 0
        on; at [B, T, 3], fp32, in bins from the corner of the cube.
        targets: what the heads are to say at an entry: children less one, or the kind and the bins of a point, [B, T, 4];
            `IGNORED` where nothing is asked.
    """

    types: Tensor
    bins: Tensor
    levels: Tensor
    at: Tensor
    targets: Tensor

    @property
    def atoms(self) -> Tensor:
        """Where points are predicted, bool [B, T]."""
        return self.targets[..., 1] != IGNORED

    @property
    def trees(self) -> Tensor:
        """Where children are predicted, bool [B, T]."""
        return (self.targets[..., 0] != IGNORED) & ~self.atoms


Row = tuple[int, tuple[int, int, int], int, tuple[float, float, float], tuple[int, int, int, int]]
NOTHING = (IGNORED,) * 4


class Writer:
    """Writes entries.

    Args:
        doubled: every node has its mask entry, at which it is predicted; else it is predicted at the entry before it, whose
            place is all that is known, and only the first node has a mask entry.
    """

    def __init__(self, grid: Grid, kinds: int, doubled: bool = True) -> None:
        self.grid, self.vocabulary, self.doubled = grid, Vocabulary(kinds), doubled
        self.neutral = (grid.bins // 2,) * 3

    def mask(self, node: Node, wanted: Choice | None = None) -> Row:
        """The entry that asks what is chosen at a node."""
        return self.vocabulary.mask, self.neutral, node.level + 1, self._middle(node), _target(wanted)

    def value(self, node: Node, choice: Choice, following: Choice | None = None) -> Row:
        """The entry of what was chosen; `following`: what is predicted here, where entries are not doubled."""
        if isinstance(choice, Atom):
            x, y, z = (c * self.grid.bins + float(b) for c, b in zip(node.corner, choice.bins, strict=True))
            return self.vocabulary.of(choice), choice.bins, 1, (x, y, z), _target(following)
        return self.vocabulary.of(choice), self.neutral, node.level + 1, self._middle(node), _target(following)

    def whole(self, growth: Growth) -> list[Row]:
        """All entries of a tree, the closing pair last."""
        chosen = growth.chosen
        after: list[Choice | None] = [choice for _, choice in chosen[1:]] + [None]
        rows = [] if self.doubled else [self.mask(*chosen[0])]
        for (node, choice), following in zip(chosen, after, strict=True):
            rows += [self.mask(node, choice), self.value(node, choice)] if self.doubled else []
            rows += [] if self.doubled else [self.value(node, choice, following)]
        middle = (self.grid.side * self.grid.bins / 2,) * 3
        ends = (self.vocabulary.mask, self.vocabulary.closing) if self.doubled else (self.vocabulary.closing,)
        return rows + [(kind, self.neutral, 0, middle, NOTHING) for kind in ends]

    def _middle(self, node: Node) -> tuple[float, float, float]:
        half = (1 << node.level) / 2
        x, y, z = ((corner + half) * self.grid.bins for corner in node.corner)
        return x, y, z


def _target(choice: Choice | None) -> tuple[int, int, int, int]:
    if choice is None:
        return NOTHING
    return (choice.kind, *choice.bins) if isinstance(choice, Atom) else (choice - 1, IGNORED, IGNORED, IGNORED)


def batched(rows: Sequence[Sequence[Row]], vocabulary: Vocabulary) -> Entries:
    """Sequences as one batch; padding follows, where nothing that counts sees it."""
    kinds, bins, levels, at, targets = (
        [torch.tensor([row[i] for row in one], dtype=torch.float32 if i == 3 else torch.long) for one in rows]
        for i in range(5)
    )
    return Entries(
        pad_sequence(kinds, True, vocabulary.closing),
        pad_sequence(bins, True, 0),
        pad_sequence(levels, True, 0),
        pad_sequence(at, True, 0.0),
        pad_sequence(targets, True, IGNORED),
    )

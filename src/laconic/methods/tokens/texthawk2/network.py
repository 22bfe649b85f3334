"""TextHawk2's two steps: a resampler whose queries are proposed by the image, and a map from joined neighbours to tokens
(arXiv 2410.05261)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.families.vision import vision_family_of
from laconic.methods.tokens.texthawk2.layout import Places, joined, tiles, untiled
from laconic.stream.readout import readout


class Proposal(nn.Module):
    """Queries from the deepest features of a tile: ``mean + W maxpool(MLP(x))`` over cells of pool x pool patches.

    The mean of the cell is ours, and W begins at zero: training starts from average pooling.

    Args:
        width: d. `expansion`: of the MLP (4 as published).
    """

    def __init__(self, width: int, expansion: int):
        super().__init__()
        inner = expansion * width
        self.mlp = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, inner))
        self.out = silent(nn.Linear(inner, width))

    def forward(self, x: Tensor, pool: int) -> Tensor:
        """x [B, s, s, d] -> [B, (s / pool)^2, d] in raster order; `pool` divides s."""
        cells, proposed = (tiles(y, pool).flatten(2, 3) for y in (x, self.mlp(x)))
        out: Tensor = cells.mean(2) + self.out(proposed.amax(2))
        return out


class Block(nn.Module):
    """A decoder block without causal mask: queries attend to each other, then to one stage of the encoder; an MLP follows.

    Each part begins as nothing added. `first`: no attention among the queries.
    """

    def __init__(self, width: int, heads: int, expansion: int, first: bool):
        super().__init__()
        self.own_norm = None if first else nn.LayerNorm(width)
        self.own = None if first else nn.MultiheadAttention(width, heads, batch_first=True)
        self.query_norm, self.stage_norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))
        self.cross = nn.MultiheadAttention(width, heads, batch_first=True)
        inner = expansion * width
        self.mlp = nn.Sequential(nn.Linear(width, inner), nn.GELU(), silent(nn.Linear(inner, width)))
        for attention in (self.own, self.cross):
            if attention is not None:
                silent(attention.out_proj)

    def forward(self, queries: Tensor, at: Tensor, stage: Tensor, places: Tensor) -> Tensor:
        """Queries [B, m, d] at codes [B, m, d] over patches [B, n, d] at codes [B, n, d] -> [B, m, d]."""
        if self.own is not None and self.own_norm is not None:
            x = self.own_norm(queries)
            queries = queries + self.own(x, x, x, need_weights=False)[0]
        seen = self.stage_norm(stage)
        queries = queries + self.cross(self.query_norm(queries) + at, seen + places, seen, need_weights=False)[0]
        out: Tensor = queries + self.mlp(self.mlp_norm(queries))
        return out


def silent(layer: nn.Linear) -> nn.Linear:
    """The layer with zeros for weights."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Resampler(nn.Module):
    """Patches of a tile -> one query for each pool x pool of them, which has read the encoder's stages.

    Args:
        width: d. `heads`: of every attention, and of the codes.
        routing: for each block the stage that it reads; (3, 2, 1, 0) goes from deep to shallow.
    """

    def __init__(self, width: int, heads: int, routing: Sequence[int], expansion: int):
        super().__init__()
        self.routing = tuple(routing)
        self.places = Places(heads, width // heads)
        self.proposal = Proposal(width, expansion)
        self.blocks = nn.ModuleList(Block(width, heads, expansion, first=not i) for i in range(len(self.routing)))

    def forward(self, stages: Sequence[Tensor], pool: int, tile: int) -> Tensor:
        """Stages of an image, shallow to deep, [B, H, W, d] each -> [B, H / pool, W / pool, d]. Tiles of tile x tile
        patches do not see each other; codes are those of their places in the whole image."""
        batch, height, width, _ = stages[0].shape
        cut = [tiles(x, tile).flatten(0, 1) for x in stages]
        places, at = (
            tiles(self.places(height // step, width // step)[None], tile // step).flatten(2, 3).repeat(batch, 1, 1, 1)
            for step in (1, pool)
        )
        queries = self.proposal(cut[-1], pool)
        for block, stage in zip(self.blocks, self.routing, strict=True):
            queries = block(queries, at.flatten(0, 1), cut[stage].flatten(1, 2), places.flatten(0, 1))
        side = tile // pool
        return untiled(queries.unflatten(0, (batch, -1)).unflatten(2, (side, side)), height // tile)


class TwoSteps(nn.Module):
    """The resampler, and the projector of `group` neighbours, which begins as the model's own for their mean.

    Args:
        routing, expansion: see `Resampler`. `group`: rows and columns that become one token.
    """

    def __init__(self, model: PreTrainedModel, routing: Sequence[int], group: tuple[int, int], expansion: int):
        super().__init__()
        config = vision_family_of(model).tower(model).config
        self.group = group
        self.resampler = Resampler(int(config.hidden_size), int(config.num_attention_heads), routing, expansion)
        self.projector = readout(model)
        first, count = self.projector[0], group[0] * group[1]
        assert isinstance(first, nn.Linear)
        wide = nn.Linear(first.in_features * count, first.out_features)
        with torch.no_grad():
            wide.weight.copy_(first.weight.repeat(1, count) / count)
            wide.bias.zero_() if first.bias is None else wide.bias.copy_(first.bias)
        self.projector[0] = wide

    def forward(self, stages: Sequence[Tensor], pool: int, tile: int) -> Tensor:
        """Stages of an image, [B, H, W, d] each -> tokens for the decoder in reading order, [B, m, D]."""
        out: Tensor = self.projector(joined(self.resampler(stages, pool, tile), self.group))
        return out


def tokens(grid: tuple[int, int], pool: int, group: tuple[int, int]) -> int | None:
    """How many tokens a view of `grid` patches becomes; None where `pool` or `group` does not divide it."""
    rows, cols = grid
    if rows % pool or cols % pool or (rows // pool) % group[0]:
        return None
    queries, count = rows * cols // pool**2, group[0] * group[1]
    return None if queries % count else queries // count


def load(artifact: Artifact, model: PreTrainedModel) -> TwoSteps:
    """The trained network, in fp32 and frozen."""
    data = artifact.data
    rows, cols = data["group"]
    return artifact.restore(TwoSteps(model, data["routing"], (rows, cols), data["expansion"]))

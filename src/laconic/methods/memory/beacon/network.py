"""Activation Beacon's network: query, key and value projections that beacons use beside the frozen model's own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.cache.observe import rotate
from laconic.errors import BudgetError, UnsupportedModelError
from laconic.families import family_of
from laconic.measure.cost import Shape
from laconic.memory.compressor import PrefixCompressor, decoder_flops, embedded
from laconic.memory.prefix import Prefix, read

PROJECTIONS = ("q_proj", "k_proj", "v_proj")


class Beacons(PrefixCompressor):
    """One beacon after every ``1 / keep`` tokens of each full window.

    Args:
        segment: tokens of a window. `marker`: the token whose embedding a beacon starts from, that of the end of a text.

    Raises:
        UnsupportedModelError: an attention without separate query, key and value projections.
    """

    def __init__(self, model: PreTrainedModel, segment: int, marker: int):
        super().__init__(segment)
        family = family_of(model)
        family.check_undoing(family.stack(model), "moving beacons together")
        self.projections = nn.ModuleList()
        for layer in family.layers(model):
            attention = family.attention(layer)
            if missing := [name for name in PROJECTIONS if not hasattr(attention, name)]:
                raise UnsupportedModelError(
                    f"{type(attention).__name__} has no {missing[0]}, beside which beacons could have one; use a model with "
                    "separate projections."
                )
            own = {name: copy.deepcopy(getattr(attention, name)).float().requires_grad_() for name in PROJECTIONS}
            self.projections.append(nn.ModuleDict(own))
        self.embedding = nn.Parameter(embedded(model, torch.tensor([[marker]], device=model.device))[0, 0].clone())

    def ratio(self, keep: float) -> int:
        """Tokens of a beacon.

        Raises:
            BudgetError: a share that is not one in a number of tokens that divides the window.
        """
        ratio = round(1 / keep)
        if abs(ratio * keep - 1) > 1e-6 or self.segment % ratio:
            raise BudgetError(f"keep={keep:g}: a beacon stands after a whole number of tokens that divides {self.segment}.")
        return ratio

    def forward(self, model: PreTrainedModel, opening: Tensor, ids: Tensor, keep: float) -> Prefix:
        made = read(model, opening.expand(len(ids), -1)) if len(opening) else None
        for window in ids.split(self.segment, 1):
            full = window.shape[1] == self.segment
            made = self._window(model, window, self.ratio(keep), made) if full else read(model, window, made)
        assert made is not None
        return made

    def _window(self, model: PreTrainedModel, ids: Tensor, ratio: int, before: Prefix | None) -> Prefix:
        """`before`, then the beacons of one window [B, w], at the positions right after it."""
        rows, beacons, start = len(ids), ids.shape[1] // ratio, 0 if before is None else before.seen
        text = embedded(model, ids).unflatten(1, (beacons, ratio))
        mixed = torch.cat([text, self.embedding.expand(rows, beacons, 1, -1)], 2).flatten(1, 2)
        at = torch.arange(beacons, device=ids.device) * (ratio + 1) + ratio
        with self._beside(model, at):
            found = read(model, mixed.to(model.dtype), before)
        held = 0 if before is None else before.entries
        there = torch.arange(beacons, device=ids.device)
        moved = turned(model, [x[:, :, held + at] for x in found.keys], (there - at)[None])
        new = Prefix(moved, tuple(x[:, :, held + at] for x in found.values), start + beacons)
        return new if before is None else before.followed_by(new)

    @contextmanager
    def _beside(self, model: PreTrainedModel, at: Tensor) -> Iterator[None]:
        """While open, the tokens `at` of a pass are projected by the beacons' own matrices."""
        family = family_of(model)
        with ExitStack() as restore:
            for layer, own in zip(family.layers(model), self.projections, strict=True):
                for name, projection in own.items():  # type: ignore[operator,union-attr]
                    restore.callback(
                        getattr(family.attention(layer), name).register_forward_hook(instead(projection, at)).remove
                    )
            yield

    def flops(self, shape: Shape, opening: int, tokens: int, keep: float) -> int:
        windows, rest = divmod(tokens, self.segment)
        beacons = self.segment // self.ratio(keep)
        pass_of, held, total = self.segment + beacons, opening, decoder_flops(shape, opening)
        for size, stays in [*[(pass_of, beacons)] * windows, *([(rest, rest)] if rest else [])]:
            pairs = size * held  # what a pass sees of the entries before it
            total += decoder_flops(shape, size) + 4 * shape.head_dim * shape.heads * pairs * shape.layers
            held += stays
        # at a beacon the model's own projections run, too, and are not used
        own = sum(module.weight.numel() for layer in self.projections for module in layer.values())  # type: ignore[operator]
        return total + 2 * own * beacons * windows


def instead(projection: nn.Module, at: Tensor) -> Any:
    """A hook that puts `projection` of the tokens `at` in the place of what a module has made of them."""

    def hook(module: nn.Module, args: tuple[Tensor], out: Tensor) -> Tensor:
        return out.index_copy(1, at, projection(args[0][:, at].float()).to(out.dtype))

    return hook


def turned(model: PreTrainedModel, keys: list[Tensor], by: Tensor) -> tuple[Tensor, ...]:
    """Keys [B, Hkv, m, D] of every layer, rotated on by as many positions as `by` [1, m] says."""
    family = family_of(model)
    cos, sin = family.cos_sin(family.stack(model), 0, by)
    size = (cos**2 + sin**2).sqrt()  # scaled RoPE (YaRN) has it in cos and sin; the keys have it already
    return tuple(rotate(x.float(), cos / size, sin / size).to(x.dtype) for x in keys)

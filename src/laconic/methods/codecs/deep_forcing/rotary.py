"""Rotary positions in time, line and column: each has channels of its own, and keys can be moved in time alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Channels(NamedTuple):
    """How many of a head's channels turn with each place; all even. Time comes first."""

    time: int
    line: int
    column: int


def rates(channels: int, base: float = 10_000.0) -> Tensor:
    """Angle per step of each pair of channels, [channels / 2]."""
    return base ** (-torch.arange(0, channels, 2) / channels)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """x [..., n, d], whose channels 2i and 2i + 1 are a pair, turned by angles [n, d / 2]."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2).to(x.dtype)


def placed(x: Tensor, frames: Tensor, side: int, channels: Channels) -> Tensor:
    """Queries or keys [..., n, d] turned to their places: frame numbers [n], and cells of a grid of `side` lines."""
    cell = torch.arange(len(frames)) % side**2
    places = zip((frames, cell // side, cell % side), channels, strict=True)
    return rotate(x, torch.cat([place[:, None].float() * rates(count) for place, count in places], 1))


def moved(keys: Tensor, by: Tensor, channels: Channels) -> Tensor:
    """Keys [..., n, d] that were turned before, as they would be `by` [n] frames later; space is left as it is."""
    time = rotate(keys[..., : channels.time], by[:, None].float() * rates(channels.time))
    return torch.cat([time, keys[..., channels.time :]], -1)

"""A small causal generator of video: each frame is denoised beside the clean frames before it, as its windows hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.methods.codecs.deep_forcing.rotary import Channels, placed
from laconic.methods.codecs.deep_forcing.window import Policy, Window

RGB = 3


@dataclass(frozen=True)
class Sizes:
    """What the network is made of: pixels of a frame's side and of a patch's, width, depth and heads."""

    size: int = 32
    patch: int = 8
    width: int = 96
    depth: int = 4
    heads: int = 4

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Sizes:
        """From an artifact's data."""
        return cls(**data)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def side(self) -> int:
        return self.size // self.patch

    @property
    def channels(self) -> Channels:
        """A third of a head's channels for each place, the rest for time."""
        head = self.width // self.heads
        third = head // 6 * 2
        return Channels(head - 2 * third, third, third)


class Block(nn.Module):
    """Attention over the window and the frame itself, and an MLP, both modulated by the time of denoising."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        w = sizes.width
        self.sizes = sizes
        self.norms = nn.ModuleList(nn.LayerNorm(w, elementwise_affine=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(w, 3 * w), nn.Linear(w, w)
        self.mlp = nn.Sequential(nn.Linear(w, 4 * w), nn.GELU(), nn.Linear(4 * w, w))
        self.modulate = nn.Linear(w, 6 * w)

    def forward(self, x: Tensor, time: Tensor, window: Window, frame: int, step: str) -> Tensor:
        """x [B, n, w] of one frame.

        Args:
            step: "first" and "later" denoising steps, or "clean": what is stored.
        """
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.modulate(time)[:, None].chunk(6, -1)
        parts = (
            self.qkv(self.norms[0](x) * (1 + scale) + shift).unflatten(-1, (3, self.sizes.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        frames = torch.full((x.shape[1],), frame)
        q, k = (placed(part, frames, self.sizes.side, self.sizes.channels) for part in parts[:2])
        if step == "first":
            window.begin(q, k, frame)
        keys, values = window.joined(k, parts[2])
        attended = F.scaled_dot_product_attention(q, keys, values).transpose(1, 2).flatten(2)
        if step == "clean":
            window.finish(q, k, parts[2], frame)
        x = x + gate * self.out(attended)
        result: Tensor = x + gate_mlp * self.mlp(self.norms[1](x) * (1 + scale_mlp) + shift_mlp)
        return result


class FilmNet(nn.Module):
    """The velocity of a frame as patches [B, n, 3 * patch^2] at time t [B] (1 is noise), and the rollout of many frames."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes, w = sizes, sizes.width
        self.embed, self.head = nn.Linear(RGB * sizes.patch**2, w), nn.Linear(w, RGB * sizes.patch**2)
        self.time = nn.Sequential(nn.Linear(64, w), nn.SiLU(), nn.Linear(w, w), nn.SiLU())
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(w)

    def windows(self, policy: Policy) -> list[Window]:
        """Empty ones, one of each layer."""
        return [Window(policy, self.sizes.side**2, self.sizes.channels) for _ in self.blocks]

    def forward(self, x: Tensor, t: Tensor, windows: list[Window], frame: int, step: str) -> Tensor:
        angles = 1000 * t[:, None] * torch.exp(-math.log(10_000) * torch.arange(32) / 32)
        time, x = self.time(torch.cat([angles.cos(), angles.sin()], 1)), self.embed(x)
        for block, window in zip(self.blocks, windows, strict=True):
            x = block(x, time, window, frame, step)
        velocity: Tensor = self.head(self.norm(x))
        return velocity

    @torch.no_grad()
    def roll(self, noise: Tensor, policy: Policy, steps: int = 4, first: int = 0) -> tuple[Tensor, list[Window]]:
        """Frames [B, F, 3, size, size] from noise [B, F, n, 3 * patch^2], one after the other, and their windows at the end.

        Args:
            steps: of Euler's method, before the clean pass that writes the frame's keys and values.
            first: number of the first frame; where the clock begins.
        """
        windows, made = self.windows(policy), []
        times = torch.linspace(1, 0, steps + 1)
        for number in range(noise.shape[1]):
            x = noise[:, number]
            for i in range(steps):
                velocity = self(x, times[i].expand(len(x)), windows, first + number, "later" if i else "first")
                x = x + (times[i + 1] - times[i]) * velocity
            self(x, torch.zeros(len(x)), windows, first + number, "clean")
            made.append(x)
        return self.frames(torch.stack(made, 1)), windows

    def patches(self, frames: Tensor) -> Tensor:
        """Frames [..., 3, size, size] as [..., n, 3 * patch^2]."""
        return F.pixel_unshuffle(frames, self.sizes.patch).flatten(-2).transpose(-1, -2)

    def frames(self, patches: Tensor) -> Tensor:
        """The inverse of `patches`."""
        side = self.sizes.side
        return F.pixel_shuffle(patches.transpose(-1, -2).unflatten(-1, (side, side)), self.sizes.patch)

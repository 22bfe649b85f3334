"""A small causal generator of video: each frame is denoised beside the clean frames before it, as its windows hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.codec.embeddings import frequencies
from laconic.codec.modulated import Modulated
from laconic.codec.patches import patched, unpatched
from laconic.methods.codecs.deep_forcing.rotary import Channels, placed
from laconic.methods.codecs.deep_forcing.window import Policy, Window

RGB = 3


@dataclass(frozen=True)
class Sizes:
    """What the network is made of.

    Attributes:
        size, patch: pixels of a frame's side and of a patch's.
        width, depth, heads: of the transformer.
    """

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


class Block(Modulated):
    """Attention over the window and the frame itself, and an MLP, both modulated by the time of denoising."""

    def __init__(self, sizes: Sizes):
        super().__init__(sizes.width, sizes.heads)
        self.sizes = sizes

    def forward(self, x: Tensor, time: Tensor, window: Window, frame: int, step: str) -> Tensor:
        """x [B, n, w] of one frame.

        Args:
            step: "first" and "later" denoising steps, or "clean": what is stored.
        """
        m = self.modulation(time[:, None])
        *parts, v = self.project(x, m)
        frames = torch.full((x.shape[1],), frame)
        q, k = (placed(part, frames, self.sizes.side, self.sizes.channels) for part in parts)
        if step == "first":
            window.begin(q, k, frame)
        keys, values = window.joined(k, v)
        attended = F.scaled_dot_product_attention(q, keys, values)
        if step == "clean":
            window.finish(q, k, v, frame)
        return self.write(x, attended, m)


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
        time, x = self.time(frequencies(t, 64)), self.embed(x)
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
        return patched(frames, self.sizes.patch)

    def frames(self, patches: Tensor) -> Tensor:
        """The inverse of `patches`."""
        return unpatched(patches, self.sizes.patch, self.sizes.side)

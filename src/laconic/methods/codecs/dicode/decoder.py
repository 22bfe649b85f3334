"""The video decoder: attention over space and over time in turn, and cross-attention to the tokens of a clip's two ends."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.codec.embeddings import frequencies, sincos
from laconic.codec.modulated import Modulated, split_heads

FREQUENCIES = 64
"""Numbers of the sinusoidal embedding of the time."""


def routed(tokens: Tensor, frames: int) -> Tensor:
    """Tokens [B, 2, q, d] of a clip's first and last frame for each of its frames, [B, frames, q, d]: the first half sees
    those of the first frame alone, the second half those of the last."""
    return tokens.repeat_interleave(frames // 2, 1)


class Told(nn.Module):
    """Cross-attention of a frame's patches [N, n, w] in two branches with one query: a text, and tokens [N, q, d].

    The text is always the empty prompt, so its branch has learned keys that stand for it. The sum is
    ``text + (tanh(alpha) + 1) * tokens``, where alpha starts at 0.
    """

    def __init__(self, width: int, numbers: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm, self.query, self.out = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)
        self.empty = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.text, self.tokens = nn.Linear(width, 2 * width), nn.Linear(numbers, 2 * width)
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        (q,) = split_heads(self.query(self.norm(x)), 1, self.heads)
        text = split_heads(self.text(self.empty.expand(len(x), -1, -1)), 2, self.heads)
        told = split_heads(self.tokens(tokens), 2, self.heads)
        by_text, by_tokens = (F.scaled_dot_product_attention(q, *seen) for seen in (text, told))
        both = by_text + (self.alpha.tanh() + 1) * by_tokens
        added: Tensor = x + self.out(both.transpose(1, 2).flatten(2))
        return added


class FilmBlock(nn.Module):
    """Cross-attention, then attention along space or along time, and an MLP."""

    def __init__(self, width: int, numbers: int, heads: int, along_time: bool):
        super().__init__()
        self.along_time = along_time
        self.told, self.own = Told(width, numbers, heads), Modulated(width, heads)

    def forward(self, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        """x [B, T, n, w], time [B, 1, 1, w], tokens of every frame [B, T, q, d]."""
        x = self.told(x.flatten(0, 1), tokens.flatten(0, 1)).view_as(x)
        x = x.transpose(1, 2) if self.along_time else x
        rows, time = x.flatten(0, 1), time.expand(-1, x.shape[1], -1, -1).flatten(0, 1)
        m = self.own.modulation(time)
        q, k, v = self.own.project(rows, m)
        x = self.own.write(rows, F.scaled_dot_product_attention(q, k, v), m).view_as(x)
        return x.transpose(1, 2) if self.along_time else x


class VideoDecoder(nn.Module):
    """The velocity of a clip's patches [B, T, n, c] at time t [B] (1 is noise), given tokens [B, 2, q, d] of its ends.

    Args:
        patch_numbers: c. `numbers`: of a token, d. `side`: patches of a frame's side.
    """

    positions: Tensor

    def __init__(self, patch_numbers: int, numbers: int, frames: int, side: int, width: int, depth: int, heads: int):
        super().__init__()
        self.embed, self.head = nn.Linear(patch_numbers, width), nn.Linear(width, patch_numbers)
        self.frame_place = nn.Parameter(0.02 * torch.randn(frames, 1, width))
        self.time = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.blocks = nn.ModuleList(FilmBlock(width, numbers, heads, i % 2 == 1) for i in range(depth))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("positions", sincos(width, side), persistent=False)

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        time, tokens = self.time(frequencies(t, FREQUENCIES))[:, None, None], routed(tokens, x.shape[1])
        x = self.embed(x) + self.positions + self.frame_place
        for block in self.blocks:
            x = block(x, time, tokens)
        velocity: Tensor = self.head(self.norm(x))
        return velocity

"""Diffusion by velocity with a schedule that ends in pure noise, DDIM's steps back, and guidance (arXiv 2305.08891).

A level a is the share of the signal's variance that is left: ``x_a = sqrt(a) x + sqrt(1 - a) eps``, with velocity
``v = sqrt(a) eps - sqrt(1 - a) x``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Of x [B, ...] at times [B] in 0 .. 1, where 1 is noise."""


def levels(count: int = 1000) -> Tensor:
    """Levels after each of `count` steps of noise, the last one exactly 0: betas whose roots are evenly spaced from
    0.00085 to 0.012, their roots of levels moved and scaled so that the first stays and the last is 0."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, count, dtype=torch.float64) ** 2
    roots = (1 - betas).cumprod(0).sqrt()
    return ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])).square().float()


def noised(x: Tensor, noise: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """x at levels a [B], and its velocity."""
    a = a.view(-1, *[1] * (x.ndim - 1))
    return a.sqrt() * x + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * x


def ddim(
    velocity: Velocity, noise: Tensor, steps: int = 50, eta: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """x from `noise` in so many of the schedule's steps, the noisiest first.

    Args:
        eta: how much new noise each step brings; 0: none.
        generator: of that noise.
    """
    known = levels()
    times = torch.linspace(len(known), 0, steps + 1).round().long()[:-1] - 1
    after = torch.cat([known[times], torch.ones(1)])
    x = noise
    for time, (a, b) in zip(times, pairwise(after), strict=True):
        v = velocity(x, ((time + 1) / len(known)).expand(len(x)))
        clean, eps = a.sqrt() * x - (1 - a).sqrt() * v, a.sqrt() * v + (1 - a).sqrt() * x
        spread = eta * ((1 - b) / (1 - a) * (1 - a / b)).sqrt()
        x = b.sqrt() * clean + (1 - b - spread**2).clamp_min(0).sqrt() * eps
        if spread > 0:
            x = x + spread * torch.randn(x.shape, generator=generator)
    return x


def guided(with_tokens: Tensor, without: Tensor, scale: float, rescale: float) -> Tensor:
    """Velocities [B, ...] without tokens and `scale` times what tokens add; of the result a share `rescale` is brought to
    the spread that the velocity with tokens has."""
    far = without + scale * (with_tokens - without)
    over = tuple(range(1, far.ndim))
    same = far * with_tokens.std(over, keepdim=True) / far.std(over, keepdim=True)
    return rescale * same + (1 - rescale) * far

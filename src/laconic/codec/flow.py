"""Rectified flow: ``x_t = (1 - t) x_0 + t eps`` with velocity ``eps - x_0``; its loss, and Euler's steps back from noise."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Of x [B, ...] at times [B]."""


def noised(x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t for times [B]."""
    at = t.view(-1, *[1] * (x.ndim - 1))
    return (1 - at) * x + at * noise


def flow_loss(velocity: Velocity, x: Tensor, t: Tensor | None = None) -> Tensor:
    """Squared error of the velocity at one time for each of x: `t` [B], or drawn from a logit-normal(0, 1)."""
    t = torch.randn(len(x), device=x.device).sigmoid() if t is None else t
    noise = torch.randn_like(x)
    return (velocity(noised(x, noise, t), t) - (noise - x)).square().mean()


def sampled(velocity: Velocity, noise: Tensor, steps: int = 20) -> Tensor:
    """Euler's method from noise at t = 1 to t = 0 in equal steps."""
    x, times = noise, torch.linspace(1, 0, steps + 1)
    for now, then in pairwise(times):
        x = x + (then - now) * velocity(x, now.expand(len(x)))
    return x


def guided(velocity: Callable[[Tensor, Tensor, Tensor], Tensor], text: Tensor, nothing: Tensor, scale: float) -> Velocity:
    """Classifier-free guidance: the velocity without a text, and `scale` times what the text adds; 1 leaves it as it is."""

    def both(x: Tensor, t: Tensor) -> Tensor:
        if scale == 1:
            return velocity(x, t, text)
        given = torch.cat([text, nothing.expand_as(text)])
        wanted, free = velocity(torch.cat([x, x]), torch.cat([t, t]), given).chunk(2)
        return free + scale * (wanted - free)

    return both

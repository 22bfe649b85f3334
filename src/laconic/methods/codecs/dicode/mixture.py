"""Mixtures of Gaussians with diagonal covariances: what a language model of vectors says of the next one."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 1e-5
"""The smallest variance."""


class Mixture(NamedTuple):
    """Means and variances [..., M, D] and logits [..., M] of M components."""

    means: Tensor
    variances: Tensor
    logits: Tensor

    @classmethod
    def of(cls, numbers: Tensor, components: int) -> Mixture:
        """From a network's output [..., 2 M D + M]: all means, then what variances are the softplus of, then the logits."""
        each = (numbers.shape[-1] - components) // 2
        means, spread, logits = numbers.split([each, each, components], -1)
        variances = F.softplus(spread).clamp_min(LEAST)
        return cls(means.unflatten(-1, (components, -1)), variances.unflatten(-1, (components, -1)), logits)

    def nll(self, x: Tensor) -> Tensor:
        """Negative log-likelihood of vectors x [..., D], divided by D, in nats [...]."""
        apart = (x[..., None, :] - self.means).square() / self.variances
        each = -0.5 * (apart + self.variances.log() + math.log(2 * math.pi)).sum(-1)
        return -torch.logsumexp(self.logits.log_softmax(-1) + each, -1) / x.shape[-1]

    def sample(self, var_scale: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """One vector of each, [..., D]: a component by its share, then its Gaussian with `var_scale` times its variance."""
        shares = self.logits.softmax(-1)
        chosen = torch.multinomial(shares.flatten(0, -2), 1, generator=generator).view(*shares.shape[:-1], 1, 1)
        at = chosen.expand(*shares.shape[:-1], 1, self.means.shape[-1])
        mean, variance = self.means.gather(-2, at).squeeze(-2), self.variances.gather(-2, at).squeeze(-2)
        return mean + (var_scale * variance).sqrt() * torch.randn(mean.shape, generator=generator)

    def entropy(self) -> Tensor:
        """Of the components' shares in nats, [...]: 0 where one has all, log M where they are even."""
        return torch.special.entr(self.logits.softmax(-1)).sum(-1)

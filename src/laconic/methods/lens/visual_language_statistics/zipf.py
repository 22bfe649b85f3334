"""Zipf's law: how the counts of types are distributed, by maximum likelihood, and what fits better (arXiv 0706.1062)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEAST, MOST = 1.01, 8.0
"""Exponents that are looked for."""
TAIL = 10
"""A tail of fewer types is not fitted."""
STARTS = 40
"""Beginnings of the tail that are tried, evenly over the counts that occur."""


@dataclass(frozen=True)
class PowerLaw:
    """``p(x) = x^-alpha / zeta(alpha, x_min)`` for counts x from `x_min` on.

    Attributes:
        ks: largest distance of the two distribution functions. `types`: how many are in the tail.
    """

    alpha: float
    x_min: int
    ks: float
    types: int


@dataclass(frozen=True)
class Vuong:
    """A power law against another distribution of the same tail: `ratio` of log-likelihoods over its standard deviation,
    positive where the power law is nearer; `p`: how likely a ratio as large is where both are equally near."""

    ratio: float
    p: float


def power_law(counts: NDArray[np.int64]) -> PowerLaw:
    """The exponent of the counts of types; the tail begins where the distance of Kolmogorov and Smirnov is smallest.

    Raises:
        ValueError: fewer than `TAIL` types.
    """
    if len(counts) < TAIL:
        raise ValueError(f"{len(counts)} types: a power law needs the counts of at least {TAIL}.")
    starts = np.unique(counts)
    starts = starts[[(counts >= x).sum() >= TAIL for x in starts]]
    if len(starts) > STARTS:
        starts = starts[np.linspace(0, len(starts) - 1, STARTS).round().astype(int)]
    return min((_fit(counts[counts >= x], int(x)) for x in starts), key=lambda fit: fit.ks)


def against_lognormal(counts: NDArray[np.int64], law: PowerLaw) -> Vuong:
    """`law` against a lognormal, discretised by its distribution function at x - 0.5 and x + 0.5."""
    x, weight = _tail(counts, law)
    return _vuong(_power(x, law.alpha, law.x_min), lognormal(x, weight, law.x_min), weight)


def against_exponential(counts: NDArray[np.int64], law: PowerLaw) -> Vuong:
    """`law` against ``p(x) = (1 - exp(-r)) exp(-r (x - x_min))``."""
    x, weight = _tail(counts, law)
    above = float((x * weight).sum() / weight.sum()) - law.x_min
    rate = math.log1p(1 / above) if above > 0 else math.inf
    other = math.log(-math.expm1(-rate)) - rate * (x - law.x_min) if above > 0 else torch.zeros_like(x)
    return _vuong(_power(x, law.alpha, law.x_min), other, weight)


def curvature(counts: NDArray[np.int64]) -> float:
    """The quadratic term of log count over log rank: 0 for a straight line, negative where it bends down."""
    ordered = np.sort(counts)[::-1]
    return float(np.polyfit(np.log(np.arange(1, len(ordered) + 1)), np.log(ordered), 2)[0])


def lognormal(x: Tensor, weight: Tensor, x_min: int) -> Tensor:
    """Log-probabilities of `x` under the most likely lognormal from `x_min` on, found on a grid that closes in."""

    def logs(mu: Tensor, sigma: Tensor) -> Tensor:  # [...] -> [..., len(x)]
        def upper(edge: Tensor) -> Tensor:  # log of the mass above an edge
            return torch.special.log_ndtr(-(edge.log() - mu[..., None]) / sigma[..., None])

        high, low, all_of_it = upper(x - 0.5), upper(x + 0.5), upper(torch.tensor([x_min - 0.5], dtype=x.dtype))
        return high + torch.log(-torch.expm1((low - high).clamp(max=-1e-12))) - all_of_it

    middle = float((x.log() * weight).sum() / weight.sum())
    centre, reach = (middle, 1.0), (4.0, 1.0)  # mu, and the logarithm of sigma
    for _ in range(14):
        steps = torch.linspace(-1, 1, 9, dtype=x.dtype)
        mu, sigma = torch.meshgrid(
            centre[0] + reach[0] * steps, (math.log(centre[1]) + reach[1] * steps).exp(), indexing="ij"
        )
        best = int((logs(mu, sigma) * weight).sum(-1).nan_to_num(nan=-math.inf).argmax())
        centre = float(mu.flatten()[best]), float(sigma.flatten()[best])
        reach = reach[0] * 0.6, reach[1] * 0.6
    return logs(torch.tensor(centre[0], dtype=x.dtype), torch.tensor(centre[1], dtype=x.dtype))


def summary(counts: NDArray[np.int64]) -> dict[str, Any]:
    """All of it as plain values."""
    law = power_law(counts)
    tests = {"lognormal": against_lognormal(counts, law), "exponential": against_exponential(counts, law)}
    return {"alpha": law.alpha, "x_min": law.x_min, "ks": law.ks, "tail": law.types, "curvature": curvature(counts)} | {
        f"against_{name}": {"ratio": test.ratio, "p": test.p} for name, test in tests.items()
    }


def _fit(tail: NDArray[np.int64], x_min: int) -> PowerLaw:
    logs = float(np.log(tail).mean())

    def cost(alpha: float) -> float:
        return alpha * logs + math.log(_zeta(alpha, x_min))

    alpha = _lowest(cost, LEAST, MOST)
    x, weight = np.unique(tail, return_counts=True)
    seen = weight.cumsum() / len(tail)
    edges = torch.from_numpy(x + 1.0)
    expected = 1 - (torch.special.zeta(torch.tensor(alpha, dtype=torch.float64), edges) / _zeta(alpha, x_min)).numpy()
    return PowerLaw(alpha, x_min, float(np.abs(seen - expected).max()), len(tail))


def _tail(counts: NDArray[np.int64], law: PowerLaw) -> tuple[Tensor, Tensor]:
    x, weight = np.unique(counts[counts >= law.x_min], return_counts=True)
    return torch.from_numpy(x.astype(np.float64)), torch.from_numpy(weight.astype(np.float64))


def _power(x: Tensor, alpha: float, x_min: int) -> Tensor:
    return -alpha * x.log() - math.log(_zeta(alpha, x_min))


def _vuong(one: Tensor, other: Tensor, weight: Tensor) -> Vuong:
    difference, n = one - other, float(weight.sum())
    mean = float((difference * weight).sum()) / n
    deviation = math.sqrt(float(((difference - mean).square() * weight).sum()) / n)
    ratio = math.sqrt(n) * mean / deviation if deviation else 0.0
    return Vuong(ratio, math.erfc(abs(ratio) / math.sqrt(2)))


def _zeta(alpha: float, start: int) -> float:
    """Hurwitz's zeta function: the sum of k^-alpha from `start` on."""
    return float(
        torch.special.zeta(torch.tensor(alpha, dtype=torch.float64), torch.tensor(float(start), dtype=torch.float64))
    )


def _lowest(cost: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one minimum has it, by golden section, to 1e-4."""
    golden = (math.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if cost(left) < cost(right) else (left, high)
    return (low + high) / 2

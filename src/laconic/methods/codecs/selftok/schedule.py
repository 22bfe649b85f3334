"""Which tokens the decoder sees at which time: the first ones always, all of them only in pure noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

KINDS = ("stages", "uniform", "lognormal", "all")


@dataclass(frozen=True)
class Schedule:
    """The number k(t) up to which tokens are visible at time t in 0 .. 1, where 1 is noise; it grows with t.

    Attributes:
        tokens: K.
        kind: "stages": piecewise linear. "uniform": ``K t``. "lognormal": ``ceil(K Phi(logit t))``. "all": K at every time,
            for the tokenizer without an order.
        ends, owned: where each stage ends, and by how many tokens k grows in it.

    Raises:
        ValueError: stages that do not end at 1 or do not share out all tokens, or an unknown kind.
    """

    tokens: int
    kind: str = "stages"
    ends: tuple[float, ...] = (0.5, 1.0)
    owned: tuple[int, ...] = (10, 6)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"schedule={self.kind!r}: choose one of {', '.join(KINDS)}.")
        rising = all(a < b for a, b in zip((0.0, *self.ends), self.ends, strict=False))
        whole = len(self.ends) == len(self.owned) and sum(self.owned) == self.tokens and min(self.owned, default=0) > 0
        if self.kind == "stages" and not (rising and self.ends and self.ends[-1] == 1 and whole):
            raise ValueError(
                f"ends={self.ends}, owned={self.owned}: stages must end at rising times, the last at 1, and their tokens "
                f"must be positive and add up to tokens={self.tokens}."
            )

    def count(self, t: Tensor) -> Tensor:
        """k(t) of times [B], not rounded."""
        if self.kind == "all":
            return torch.full_like(t, self.tokens)
        if self.kind == "uniform":
            return self.tokens * t
        if self.kind == "lognormal":
            return (self.tokens * torch.special.ndtr(t.logit())).ceil()
        return _interpolated(t, *self._knots(t))

    def visible(self, t: Tensor) -> Tensor:
        """Whether each token is seen at times [B]: token i is if ``i <= k(t)``, [B, K]."""
        return torch.arange(self.tokens, device=t.device) <= self.count(t)[:, None]

    def first(self) -> Tensor:
        """The smallest time from which on each token is visible, [K]."""
        number = torch.arange(self.tokens, dtype=torch.float32)
        if self.kind == "all":
            return torch.zeros_like(number)
        if self.kind == "uniform":
            return number / self.tokens
        if self.kind == "lognormal":
            return torch.special.ndtri((number - 1).clamp_min(0) / self.tokens).sigmoid()
        times, counts = self._knots(number)
        return _interpolated(number, counts, times)

    def weights(self) -> Tensor:
        """Factor on the gradient of each token, ``0.5 / (1 - first)`` [K]: times the share of the times at which a token is
        visible it is 0.5 for all, so that tokens that are seldom seen learn as much as others."""
        return 0.5 / (1 - self.first())

    def order(self) -> Tensor:
        """Numbers of the tokens from the coarse to the fine: K - 1, which only noise needs, comes first; 0, which is seen to
        the end, comes last."""
        return torch.arange(self.tokens).flip(0)

    def _knots(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Times at which stages end, and k there; both begin with 0."""
        return torch.tensor([0.0, *self.ends]).to(like), torch.tensor([0, *self.owned]).cumsum(0).to(like)


def _interpolated(x: Tensor, at: Tensor, values: Tensor) -> Tensor:
    """The piecewise linear function through (at, values), both rising, at x."""
    after = torch.searchsorted(at, x.contiguous()).clamp(1, len(at) - 1)
    low, high = at[after - 1], at[after]
    return values[after - 1] + (x - low) / (high - low) * (values[after] - values[after - 1])

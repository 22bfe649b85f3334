"""One budget type for every method: a share to keep, a count of tokens, or bytes; and how a count is spread over layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from laconic.errors import BudgetError

BUDGETS = ("keep", "tokens", "bytes")
"""Names under which one is given."""


@dataclass(frozen=True)
class Budget:
    """How much of a context may stay. Exactly one of the three is set.

    Args:
        keep: share of the tokens seen, ``0 < keep <= 1``.
        tokens: entries per layer and head (mean over layers and heads), ``>= 1``.
        bytes: bytes of keys and values of one sequence over all compressed layers, ``>= 1``.

    Raises:
        BudgetError: none or more than one is given, or the value is out of range.
    """

    keep: float | None = None
    tokens: int | None = None
    bytes: int | None = None

    def __post_init__(self) -> None:
        given = {k: v for k, v in vars(self).items() if v is not None}
        if len(given) != 1:
            raise BudgetError(f"give exactly one of keep=, tokens= or bytes=; got {given or 'none of them'}.")
        ((name, value),) = given.items()
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise BudgetError(f"{name}={value!r} must be a number.")
        if name == "keep" and not 0 < value <= 1:
            meant = 2 <= value <= 100  # 1.1 is sooner 110 % than a bare 1.1
            percent = f"; for {value:g} percent write {value / 100:g} or {value:g}%" if meant else ""
            raise BudgetError(
                f"keep={value} is out of range: it is the share kept, 0 < keep <= 1 (keep=1.0 keeps all){percent}."
            )
        if name != "keep" and not (1 <= value < math.inf and int(value) == value):
            raise BudgetError(f"{name}={value} is out of range: it is a whole number of at least 1.")

    @property
    def neutral(self) -> bool:
        """True when nothing may ever be removed (``keep=1.0``)."""
        return self.keep == 1

    def entries(self, seen: int, bytes_per_entry: int) -> int:
        """Entries per layer and KV head that may stay of `seen` tokens; at least 1, at most `seen`.

        Args:
            seen: real tokens (no padding) that one sequence has seen.
            bytes_per_entry: bytes that one token costs when every KV head of every compressed layer stores it.
        """
        if self.keep is not None:
            count = int(seen * self.keep + 1e-6)  # int(), as published; the epsilon forgives 0.3 * 10 = 2.999...
        elif self.tokens is not None:
            count = int(self.tokens)
        else:
            assert self.bytes is not None
            count = int(self.bytes) // bytes_per_entry
            if count < 1:
                raise BudgetError(
                    f"bytes={self.bytes} is too little for a single token: a token costs {bytes_per_entry} bytes over the "
                    "compressed layers."
                )
        return max(1, min(count, seen))

    def share(self, real: Sequence[int], bytes_per_entry: int) -> float:
        """Share of the tokens that is asked for: `keep` itself, or what a number of tokens or bytes comes to.

        Args:
            real: tokens of each sequence; bytes_per_entry: as for `entries`.
        """
        if self.keep is not None:
            return self.keep
        return sum(self.entries(n, bytes_per_entry) for n in real) / sum(real)

    def __str__(self) -> str:
        return " ".join(f"{k}={v}" for k, v in vars(self).items() if v is not None)


def share(text: str) -> float:
    """A share from text: ``"0.1"`` or ``"10%"``.

    Raises:
        ValueError: it is no number.
    """
    number = text.strip()
    return float(number[:-1]) / 100 if number.endswith("%") else float(number)


def pyramid(mean: float, beta: float, layers: int, ceiling: float) -> list[float]:
    """Linearly falling layer budgets with the given mean (arXiv 2406.02069, section 4.2).

    Args:
        mean: entries per layer on average.
        beta: the last layer gets ``mean / beta``; 1 gives equal budgets.
        layers: number of layers.
        ceiling: most entries that one layer can use; the slope is flattened to respect it.

    Returns:
        one real-valued budget per layer, first layer first; round them together to keep the mean exact.
    """
    if layers == 1:
        return [mean]
    low = mean / beta
    high = 2 * mean - low
    if high > ceiling:
        high, low = ceiling, 2 * mean - ceiling
    step = (high - low) / (layers - 1)
    return [high - i * step for i in range(layers)]

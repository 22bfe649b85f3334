"""Which of the sizes that a network was trained for a view is compressed to, and views that it was not trained for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from laconic.errors import BudgetError, UnsupportedModelError
from laconic.stream.contract import Stream, TokenMethod
from laconic.stream.equal_budget import tokens_after
from laconic.stream.shares import spread


def sized(
    method: TokenMethod, stream: Stream, row: int, totals: Sequence[int], counts: Sequence[Mapping[int, int]]
) -> list[int]:
    """For every view (or clip) of a batch row the size that makes the most tokens within its share of the budget.

    Args:
        totals: visual tokens of each view. counts: of each view, the tokens that every trained size makes of it.

    Raises:
        BudgetError: a share below what the smallest size makes.
    """
    if not totals:
        return []
    chosen = []
    for share, made in zip(spread(tokens_after(method, stream, row), totals, totals), counts, strict=True):
        fitting = [size for size, tokens in made.items() if tokens <= share]
        if not fitting:
            raise BudgetError(
                f"{method.name}: the budget leaves {share} tokens to a view, and the smallest size that this artifact was "
                f"trained for makes {min(made.values())} of it; raise it, or fit smaller sizes."
            )
        chosen.append(max(fitting, key=made.__getitem__))
    return chosen


def refuse_larger(name: str, grid: Tensor, side: int) -> None:
    """Raise `UnsupportedModelError` for a view [rows, cols] of more than `side` tokens a side, the most in training."""
    if max(grid.shape) > side:
        raise UnsupportedModelError(
            f"{name} was trained on views of up to {side} visual tokens a side, and this one has {grid.shape[0]} x "
            f"{grid.shape[1]}; show a smaller image, or fit the method to images of this size."
        )

"""How many visual tokens may stay after one or several cuts, so that the mean over layers is met."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from laconic.errors import BudgetError
from laconic.stream.contract import Stream, TokenMethod


def visual_total(stream: Stream, row: int) -> int:
    """Visual tokens of a batch row in this pass, before any cut; separators do not count."""
    return int((stream.visual.mask & ~stream.visual.separators)[row].sum())


def mean_tokens(method: TokenMethod, stream: Stream, row: int) -> float:
    """What the method's budget allows a batch row, as a mean over all layers."""
    others = ~stream.shown[row] if stream.valid is None else ~stream.shown[row] & stream.valid[row]
    return method.allowance(visual_total(stream, row), int(others.sum()), stream.entry_bytes)


def tokens_after(method: TokenMethod, stream: Stream, row: int) -> int:
    """Visual tokens of a batch row that may stay after a single cut before `stream.layer`: n = (L avg - K N) / (L - K),
    rounded, and at most as many as there are."""
    total, there = visual_total(stream, row), int(stream.shown[row].sum())
    if not there:
        return 0
    return min(there, int(method.mean_after(mean_tokens(method, stream, row), total, stream.layer, stream.depth) + 0.5))


def average(total: int, layers: Sequence[int], counts: Sequence[int], depth: int) -> float:
    """Mean over `depth` layers when `counts[i]` of `total` tokens are left from layer `layers[i]` (ascending) on."""
    first = [0, *layers]
    lengths = [stop - start for start, stop in zip(first, [*layers, depth], strict=True)]
    return sum(n * length for n, length in zip([total, *counts], lengths, strict=True)) / depth


def fitted(
    name: str, mean: float, total: int, layers: Sequence[int], depth: int, counts: Callable[[float], Sequence[int]]
) -> float:
    """The largest x in [0, 1] for which several cuts that leave ``counts(x)`` average at most `mean` tokens.

    Args:
        counts: numbers of tokens after every cut; they must not decrease with x.

    Raises:
        BudgetError: even ``counts(0)`` is too much.
    """
    least = average(total, layers, counts(0.0), depth)
    if least > mean + 0.5:
        raise BudgetError(
            f"{name}: with cuts before layers {', '.join(map(str, layers))} of {depth} at least {least:.1f} visual tokens "
            f"run on average, but the budget is {mean:.1f} of {total}. Ask for keep={least / total:.4f} or more, or cut "
            "earlier (layers=)."
        )
    low, high = 0.0, 1.0
    if average(total, layers, counts(high), depth) <= mean:
        return high
    for _ in range(40):
        middle = (low + high) / 2
        if average(total, layers, counts(middle), depth) <= mean + 1e-6:
            low = middle
        else:
            high = middle
    return low

"""The iterative token filter (arXiv 2310.05736, section 3.2): a text is scored in windows, each after what was kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Literal, Protocol

from laconic.shortening.choose import fill
from laconic.shortening.scoring import ids_of, per_piece
from laconic.shortening.source import Source

Quantile = Literal["window", "prefix"]


class Judge(Protocol):
    """Scores the tokens of a window after what was kept of those before it."""

    def score(self, window: Sequence[int]) -> list[float]:
        """One score for each token of `window`; high ones stay."""

    def keep(self, tokens: Sequence[int]) -> None:
        """`tokens` of the window that was scored last stay."""


def filtered(
    source: Source,
    order: Sequence[int],
    shares: Sequence[float],
    judge: Judge,
    window: int,
    quantile: Quantile = "window",
) -> list[int]:
    """Numbers of the pieces that stay, in the order in which they are read.

    Args:
        order: the pieces, as they are read. `shares`: of each of them, how much is to stay of the
            neighbours with the same share, its document.
        window: tokens that are scored at once.
        quantile: "window": each window keeps its highest scores, as many as bring what was kept so far to what is due, so
            the budget is met. "prefix": those above a threshold, the quantile of the scores of what was kept before and
            the window's together, as the published code has it; what is kept then only tends to the budget.
    """
    sizes = source.pieces.sizes
    kept: list[int] = []
    earlier: list[float] = []
    due, spent = 0.0, 0
    for part in _windows(order, sizes, window):
        stay: list[int] = []
        scored = judge.score(ids_of(source, [order[i] for i in part]))
        scores = dict(zip(part, per_piece(source, [order[i] for i in part], scored), strict=True))
        for share, same in groupby(part, key=shares.__getitem__):  # documents have shares of their own
            places = list(same)
            numbers, own = [order[i] for i in places], [scores[i] for i in places]
            forced = {i for i, number in enumerate(numbers) if number in source.forced}
            due += share * source.pieces.size(numbers)
            if quantile == "window":
                ranked = sorted(range(len(own)), key=lambda i: (-own[i], i))
                least = 0 if kept or stay else 1
                chosen = fill([ranked], [sizes[number] for number in numbers], round(due) - spent, forced, least=least)
            else:
                limit = _threshold([*earlier, *own], share)
                chosen = [i for i, score in enumerate(own) if score > limit or i in forced]
            earlier += [own[i] for i in chosen]
            stay += [numbers[i] for i in chosen]
            spent += sum(sizes[numbers[i]] for i in chosen)
        judge.keep(ids_of(source, stay))
        kept += stay
    return kept


def _windows(order: Sequence[int], sizes: Sequence[int], window: int) -> Iterator[range]:
    """Places in `order`, in groups of `window` tokens; a piece of several tokens may make a group a little longer."""
    start = total = 0
    for i, number in enumerate(order):
        total += sizes[number]
        if total >= window:
            yield range(start, i + 1)
            start, total = i + 1, 0
    if start < len(order):
        yield range(start, len(order))


def _threshold(scores: Sequence[float], share: float) -> float:
    """The score at rank ``int(n * share) - 1``, counted from the highest, which is 0."""
    rank = int(len(scores) * share + 1e-6) - 1  # the epsilon forgives 0.3 * 10 = 2.999...
    return sorted(scores, reverse=True)[max(0, min(len(scores) - 1, rank))]

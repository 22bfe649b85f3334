"""Which pieces stay, from their ranks and a budget of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set


def fill(
    units: Iterable[Sequence[int]], sizes: Sequence[int], budget: float, forced: Set[int] = frozenset(), least: int = 1
) -> list[int]:
    """Take `units` one after another until the budget is spent; of the last one as much as still fits, from its beginning.

    Args:
        units: groups of piece numbers, the most important first.
        sizes: tokens of each piece.
        forced: pieces that stay in any case; they are paid for first.
        least: pieces that stay even where the budget has no room for them.

    Returns:
        numbers of the kept pieces, ascending.
    """
    kept = set(forced)
    left = budget - sum(sizes[i] for i in kept)
    for unit in units:
        for piece in unit:
            if piece in kept:
                continue
            if sizes[piece] > left and len(kept) >= least:
                return sorted(kept)
            kept.add(piece)
            left -= sizes[piece]
    return sorted(kept)

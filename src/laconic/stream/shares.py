"""One number of tokens spread over images, crops or frames."""

from __future__ import annotations

from collections.abc import Sequence

from laconic.errors import BudgetError


def spread(total: int, weights: Sequence[float], most: Sequence[int], least: Sequence[int] | None = None) -> list[int]:
    """Whole numbers in proportion to `weights`, each at least 1 and at most `most`, that sum to `total`.

    What one cannot use goes to the others in proportion; the largest fractions are rounded up, on ties the first.

    Args:
        total: limited to the sum of `most`. `weights`: not negative. `most`: at least 1 each.
        least: what each gets in any case, at most `most`; None: 1.

    Raises:
        BudgetError: `total` is less than the sum of `least`.
    """
    if least is None:
        least = [1] * len(most)
        needed = f"{len(most)} images, crops or frames; each must keep one"
    else:
        needed = f"images, crops or frames that need {sum(least)}"
    if total < sum(least):
        raise BudgetError(f"the budget leaves {total} visual tokens to {needed}. Raise it.")
    total = min(total, sum(most))
    weights = [max(float(weight), 1e-9) for weight in weights]

    def filled(factor: float) -> list[float]:
        limits = zip(weights, least, most, strict=True)
        return [min(max(factor * weight, float(low)), float(top)) for weight, low, top in limits]

    low, high = 0.0, max((top / weight for weight, top in zip(weights, most, strict=True)), default=0.0)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(filled(middle)) < total else (low, middle)
    real = filled(high)
    counts = [int(x + 1e-6) for x in real]
    order = sorted(range(len(real)), key=lambda i: (counts[i] - real[i], i))
    for i in [i for i in order if counts[i] < most[i]][: total - sum(counts)]:
        counts[i] += 1
    return counts

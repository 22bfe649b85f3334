"""How many tokens go on in every encoder layer, and what that costs (arXiv 2305.17997)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Tokens that may stay in each layer, CLS included, after pruning and after merging.

    Published lists are not monotone; where a layer has fewer tokens than its number, all of them stay.

    Attributes:
        prune, merge: one number per layer.
    """

    prune: tuple[int, ...]
    merge: tuple[int, ...]

    def counts(self, tokens: int) -> list[tuple[int, int, int]]:
        """(tokens that enter a layer, those left after pruning, those left after merging), for every layer."""
        result = []
        for prune, merge in zip(self.prune, self.merge, strict=True):
            pruned = min(tokens, prune)
            merged = min(pruned, merge)
            result.append((tokens, pruned, merged))
            tokens = merged
        return result


def steady(tokens: int, left: int, layers: int) -> Schedule:
    """Equally many tokens merged in every layer, as ToMe does, and none pruned."""
    counts = [tokens - round((tokens - left) * (i + 1) / layers) for i in range(layers)]
    return Schedule((tokens,) * layers, tuple(counts))


def macs(counts: Sequence[tuple[int, int, int]], width: int, inner: int) -> int:
    """Multiply-adds of the layers: attention over the tokens that enter, the MLP over those that are left."""
    return sum(4 * n * width**2 + 2 * n**2 * width + 2 * left * width * inner for n, _, left in counts)


def embedding_macs(patches: int, width: int, patch: int, classes: int = 0) -> int:
    """Multiply-adds before and after the layers: square patches of `patch` pixels in three channels, and a classifier."""
    return patches * width * 3 * patch**2 + width * classes

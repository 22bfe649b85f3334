"""Means over groups of neighbouring tokens."""

from __future__ import annotations

from torch import Tensor


def run_starts(tokens: int, groups: int) -> list[int]:
    """Where each of `groups` runs of near-equal length begins; the first ``tokens % groups`` have one token more.

    Raises:
        ValueError: more groups than tokens.
    """
    if not 1 <= groups <= tokens:
        raise ValueError(f"groups={groups}: {tokens} tokens make 1 to {tokens} groups.")
    short, longer = divmod(tokens, groups)
    return [i * short + min(i, longer) for i in range(groups)]


def group_means(states: Tensor, groups: int) -> Tensor:
    """Mean of every run of neighbouring states: [B, n, d] -> [B, groups, d]."""
    starts = run_starts(states.shape[1], groups)
    lengths = [stop - start for start, stop in zip(starts, [*starts[1:], states.shape[1]], strict=True)]
    sums = states.new_zeros(states.shape[0], groups, states.shape[2])
    run = states.new_tensor([i for i, length in enumerate(lengths) for _ in range(length)]).long()
    sums = sums.index_add(1, run, states)
    return sums / states.new_tensor(lengths)[:, None]

"""Which tokens stay, given scores of tokens and of frames: important ones by score, the rest evenly spaced (arXiv
2602.01649)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CAP = 1.5
"""The largest share of a frame that may stay, in multiples of the budget's share: phi = CAP * rho, at most 1."""


def frame_weights(scores: Tensor, rho: float) -> Tensor:
    """Shares of the budget by frame, [t] -> [t], which sum to 1: ``softmax(3 f / max |f|)``, clipped to between half of an
    even share and `CAP` times it."""
    t, top = len(scores), scores.abs().max()
    weights = (3 * scores / top if top > 0 else scores).softmax(0)
    weights = weights.clamp(1 / (2 * t), min(CAP * rho, 1.0) / (t * rho))
    return weights / weights.sum()


def per_frame(weights: Tensor, sizes: Sequence[int], total: int, rho: float, eta: float) -> list[int]:
    """Important tokens of each frame, which sum to `total`: in proportion to the weights, at least one and at most
    ``eta * CAP * rho`` of the frame, then one more or less for the smallest or largest until the sum is right.

    Args:
        sizes: tokens of each frame.
    """
    most = [max(1, int(eta * size * min(CAP * rho, 1.0))) for size in sizes]
    counts = [min(max(round(float(w) * total), 1), top) for w, top in zip(weights, most, strict=True)]
    while sum(counts) > total:
        counts[counts.index(max(counts))] -= 1
    while sum(counts) < total:
        room = [i for i, size in enumerate(sizes) if counts[i] < size]
        counts[min(room, key=counts.__getitem__)] += 1
    return counts


def selected(tokens: Sequence[Tensor], frames: Tensor, count: int, eta: float) -> Tensor:
    """The `count` tokens that stay of all frames, ascending, [count].

    Args:
        tokens: scores of each frame's tokens, [v] each. frames: scores of the frames, [t].
        eta: share of the tokens that is chosen by score; the rest is evenly spaced among the others.
    """
    sizes = [len(one) for one in tokens]
    rho, important, start = count / sum(sizes), int(eta * count + 1e-9), 0
    kept = torch.zeros(sum(sizes), dtype=torch.bool, device=frames.device)
    if important:
        weights = frame_weights(frames.float(), rho)
        for one, n in zip(tokens, per_frame(weights, sizes, important, rho, eta), strict=True):
            kept[start + one.topk(n).indices] = True
            start += len(one)
    others = (~kept).nonzero()[:, 0]
    if rest := count - int(kept.sum()):
        kept[others[torch.linspace(0, len(others) - 1, rest, device=others.device).round().long()]] = True
    return kept.nonzero()[:, 0]

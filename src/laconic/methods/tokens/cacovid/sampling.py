"""The sets of tokens that answers are tried with: drawn within a group of similar scores, so that sets differ in what they
earn (arXiv 2602.01649)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def capped(p: Tensor, most: float) -> Tensor:
    """Probabilities [G] of which none exceeds `most`, by moving what is above to the others in proportion.

    `most` times G must be at least 1.
    """
    p, fixed = p / p.sum(), torch.zeros_like(p, dtype=torch.bool)
    while bool((p > most + 1e-9).any()):
        fixed |= p >= most
        rest = p.masked_fill(fixed, 0.0)
        left = 1 - most * int(fixed.sum())
        spread = rest / rest.sum() if rest.sum() > 0 else (~fixed).to(p) / (~fixed).sum()
        p = torch.where(fixed, torch.full_like(p, most), left * spread)
    return p


def drawn(scores: Tensor, sets: int, count: int, generator: Generator) -> Tensor:
    """Sets of tokens of one frame, [sets, count], without duplicates; the first one holds the best.

    Scores [v] are sorted and cut into ``G = v / (2 count)`` groups of equal size. Each set comes from one group, drawn by
    its share of the softmax (at most the larger of 2 / G and 0.1, and at most 0.9), with probabilities clamped to between
    half and twice an even share of the group.
    """
    v = len(scores)
    p, number = scores.float().softmax(0), max(v // (2 * count), 1)
    order, size = p.argsort(descending=True, stable=True), v // number
    chunks = order[: number * size].view(number, size)
    shares = p[chunks].sum(1)
    if number > 1:
        shares = capped(shares, max(min(2 / number, 0.9), 0.1, 1 / number))
    which = torch.multinomial(shares, sets, replacement=True, generator=generator)
    inside = p[chunks[which]]
    inside = (inside / inside.sum(1, keepdim=True)).clamp(1 / (2 * size), 2 / size)
    picked = torch.multinomial(inside, count, generator=generator)
    found = chunks[which].gather(1, picked)
    found[0] = order[:count]
    return found


def peaks(x: Tensor, count: int, neighbours: int = 4) -> Tensor:
    """The `count` density peaks of vectors [v, D]: density ``exp(-mean squared distance to the nearest)`` times the distance
    to the nearest denser vector; distances are divided by sqrt(D). Of equal ones the earlier counts as denser."""
    distance = torch.cdist(x.float(), x.float()) * x.shape[1] ** -0.5
    nearest = distance.topk(min(neighbours + 1, len(x)), largest=False).values[:, 1:]  # the first is itself
    density = (-nearest.square().mean(1)).exp()
    at = torch.arange(len(x), device=x.device)
    denser = (density[None] > density[:, None]) | ((density[None] == density[:, None]) & (at[None] < at[:, None]))
    apart = distance.masked_fill(~denser, float("inf")).amin(1)
    apart = torch.where(apart.isinf(), distance.max(), apart)
    return (density * apart).topk(count).indices


def objective(logits: Tensor, before: Tensor, kept: Tensor, rewards: Tensor, low: float = 0.2, high: float = 0.28) -> Tensor:
    """The clipped policy loss of sets of kept tokens, a scalar.

    With A the rewards less their mean, over their deviation, and r the ratio of the new to the old probability of what a set
    did to a token: ``-min(r A, clip(r, 1 - low, 1 + high) A)``, the mean over tokens weighted by the share of the opposite
    action in the set, so that the many drops do not outweigh the few keeps; then the mean over sets.

    Args:
        logits, before: (drop, keep) of the policy and of the one that drew, [N, 2]. kept: [sets, N]. rewards: [sets].
    """
    advantage = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    action = kept.long()
    new, old = (x.log_softmax(-1)[None].expand(len(kept), -1, -1) for x in (logits, before.detach()))
    ratio = (new.gather(2, action[..., None]) - old.gather(2, action[..., None]))[..., 0].exp()
    a = advantage[:, None]
    gain = torch.minimum(ratio * a, ratio.clamp(1 - low, 1 + high) * a)
    share = kept.float().mean(1, keepdim=True)
    weight = torch.where(kept, 1 - share, share)
    return -((weight * gain).sum(1) / weight.sum(1)).mean()

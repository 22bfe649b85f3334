"""Choosing entries: top-k per head, top-k over all heads of a layer, and the bookkeeping of ragged results."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Selection:
    """Which entries of a layer stay.

    Attributes:
        index: entry numbers that stay, ascending, [B, Hkv, m]; rows shorter than m are filled with the number n (one past
            the end).
        lengths: entries kept by every row, [B, Hkv]; None when every row keeps m.
    """

    index: torch.Tensor
    lengths: torch.Tensor | None = None


def best(scores: torch.Tensor, counts: torch.Tensor | int) -> torch.Tensor:
    """scores [..., n], how many to take from each row ([...] or one number) -> mask [..., n] of the best ones.

    Equal scores go to the earlier entry, on every device and for every n (`topk` promises no order, and pooled scores have
    many equals), so a padded batch and a single sequence choose the same entries.
    """
    n = scores.shape[-1]
    counts = torch.as_tensor(counts, device=scores.device).expand(scores.shape[:-1]).clamp(0, n)
    most = int(counts.max()) if n and counts.numel() else 0
    if most == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    ranked = scores.topk(most, dim=-1).values
    least = ranked.gather(-1, (counts - 1).clamp(min=0)[..., None])
    above = scores > least
    ties = scores == least
    room = (counts - above.sum(-1))[..., None]
    return (above | (ties & (ties.cumsum(-1) <= room))) & (counts > 0)[..., None]


def top_k(scores: torch.Tensor, counts: list[int]) -> Selection:
    """scores [B, Hkv, n], entries kept by each batch row -> the best `counts[b]` entries of every head of row b."""
    if min(counts) == max(counts):
        least = scores.topk(counts[0], sorted=False).values.amin(-1, keepdim=True)
        index = (scores >= least).nonzero()[:, -1]
        if index.numel() != scores.shape[0] * scores.shape[1] * counts[0]:  # equal scores at the threshold
            index = best(scores, counts[0]).nonzero()[:, -1]
        return Selection(index.view(*scores.shape[:2], counts[0]))
    return from_mask(best(scores, torch.tensor(counts, device=scores.device)[:, None]))


def top_k_across_heads(scores: torch.Tensor, counts: list[int], floors: list[int]) -> Selection:
    """scores [B, Hkv, n] -> the best ``Hkv * counts[b]`` entries of the whole layer; every head keeps its best
    `floors[b]`.

    The head budgets of arXiv 2407.11550, algorithm 1: what one head does not need goes to the others.
    """
    b, h, n = scores.shape
    safe = best(scores, torch.tensor(floors, device=scores.device)[:, None])
    layer = scores.masked_fill(safe, float("inf")).view(b, h * n)
    return from_mask(best(layer, torch.tensor(counts, device=scores.device) * h).view(b, h, n))


def from_mask(kept: torch.Tensor) -> Selection:
    """kept [B, Hkv, n] bool -> the same choice as sorted indices and lengths."""
    n = kept.shape[-1]
    lengths = kept.sum(-1)
    most = int(lengths.max())
    order = torch.where(kept, torch.arange(n, device=kept.device), n).sort(dim=-1).values[..., :most]
    return Selection(order, None if bool((lengths == most).all()) else lengths)


def pick(scores: torch.Tensor, counts: list[int], valid: torch.Tensor | None) -> torch.Tensor:
    """scores [B, T], positions taken from each row -> the best `counts[b]` positions of row b, ascending, [B, max(counts)].

    A row that takes fewer than its neighbours is filled up with its own padding (False in `valid` [B, T]), never with
    real positions, so that a batch chooses what each sequence alone would choose.
    """
    number = torch.tensor(counts, device=scores.device)
    if valid is None:
        return best(scores, number).nonzero()[:, -1].clone().view(len(counts), -1)  # frees the other coordinates
    chosen = best(scores.masked_fill(~valid, float("-inf")), number)
    filler = best((~valid).float(), max(counts) - number)
    return (chosen | filler).nonzero()[:, -1].clone().view(len(counts), -1)

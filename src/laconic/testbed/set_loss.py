"""Batches and the loss of the testbed's training: any of several next tokens may be right.

A list may name its values in any order, so the loss asks only that the probability mass lies on the values not yet
named. Only supervised positions go through the LM head.
"""

import torch
from torch import Tensor

from laconic.tasks.text.mixture import Example


def collate(examples: list[Example], tokens: int, device: str) -> tuple[Tensor, ...]:
    """Right-padded ids [B, tokens] and, for the N supervised positions: flat index of the position before
    [N], acceptable ids [N, K] (-1 where unused), weight [N], kind [N].
    """
    ids = torch.zeros(len(examples), tokens, dtype=torch.long)
    at, accept, weight, kind = [], [], [], []
    for b, example in enumerate(examples):
        ids[b, : len(example.ids)] = torch.tensor(example.ids)
        for position, (choices, w, k) in example.targets.items():
            at.append(b * tokens + position - 1)
            accept.append(choices)
            weight.append(w)
            kind.append(k)
    width = max(map(len, accept))
    table = torch.tensor([[*row, *[-1] * (width - len(row))] for row in accept])
    return tuple(t.to(device) for t in (ids, torch.tensor(at), table, torch.tensor(weight), torch.tensor(kind)))


def set_loss(logits: Tensor, accept: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean of ``logsumexp(logits) - logsumexp(logits of acceptable ids)`` and hits [N] of the
    argmax.

    logits [N, V], accept [N, K] with -1 for unused, weight [N]. One acceptable id is plain cross-entropy.
    """
    good = logits.gather(1, accept.clamp(min=0)).masked_fill(accept < 0, float("-inf"))
    loss = logits.logsumexp(1) - good.logsumexp(1)
    hits = (logits.argmax(1, keepdim=True) == accept).any(1)
    return (loss * weight).sum() / weight.sum(), hits

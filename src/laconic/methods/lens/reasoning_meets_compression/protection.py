"""What a few weights are worth: all others are rounded to few bits, and those stay as they are (arXiv 2504.02010)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from laconic.methods.lens.reasoning_meets_compression.behaviours import Response
from laconic.weights.quantiser import codes_of, steps_of
from laconic.weights.restored import restored

Spared = dict[str, Tensor]
"""Map -> which of its rows stay as they are, bool [out]. Maps that are not named have none."""


def spared(maps: Mapping[str, nn.Linear], scores: Sequence[Tensor], share: float) -> Spared:
    """The rows of highest score per weight, over all maps, as many as fit into `share` of all weights.

    Args:
        scores: of each map's rows, [out] each.
    """
    left = share * sum(linear.weight.numel() for linear in maps.values())
    rows = [
        (float(score) / linear.in_features, name, row)
        for (name, linear), own in zip(maps.items(), scores, strict=True)
        for row, score in enumerate(own)
    ]
    found = {name: torch.zeros(linear.out_features, dtype=torch.bool) for name, linear in maps.items()}
    for _, name, row in sorted(rows, reverse=True):
        size = maps[name].in_features
        if size <= left:
            found[name][row] = True
            left -= size
    return found


def drawn(maps: Mapping[str, nn.Linear], share: float, seed: int) -> Spared:
    """Rows drawn alike, as many as fit into `share` of all weights: every row's score per weight is a random number."""
    random = torch.Generator().manual_seed(seed)
    scores = [torch.rand(x.out_features, generator=random) * x.in_features for x in maps.values()]
    return spared(maps, scores, share)


@contextmanager
def rounded(model: nn.Module, maps: Mapping[str, nn.Linear], bits: int, group: int, stay: Spared) -> Iterator[None]:
    """Meanwhile all maps are rounded to `bits` bits in groups of `group` along a row, but for the rows that `stay`."""
    with restored(model):
        for name, linear in maps.items():
            weight = linear.weight.detach()
            groups = weight.float().unflatten(-1, (-1, group))
            steps = steps_of(groups, bits)[..., None]
            coarse = (codes_of(groups, steps, bits) * steps).flatten(-2).to(weight)
            kept = stay.get(name, torch.zeros(len(weight), dtype=torch.bool))[:, None].to(weight.device)
            linear.weight = nn.Parameter(torch.where(kept, weight, coarse), requires_grad=False)
        yield


@torch.no_grad()
def loss(model: Any, responses: Sequence[Response]) -> float:
    """Mean loss of the answers' tokens, in nats: how far the model is from saying them again."""
    total, count = 0.0, 0
    for one in responses:
        ids = torch.tensor([one.ids], device=model.device)
        logits = model(input_ids=ids, use_cache=False).logits[0, one.prompt - 1 : -1]
        total += float(cross_entropy(logits.float(), ids[0, one.prompt :], reduction="sum"))
        count += len(one.ids) - one.prompt
    return total / count


def worth(
    model: Any,
    maps: Mapping[str, nn.Linear],
    scores: Sequence[Tensor],
    responses: Sequence[Response],
    share: float,
    bits: int,
    group: int,
    draws: int,
) -> dict[str, Any]:
    """Loss of the model's own answers when all is rounded but the rows of highest score, and but as many drawn ones."""

    def under(stay: Spared) -> float:
        with rounded(model, maps, bits, group, stay):
            return loss(model, responses)

    return {
        "as it is": loss(model, responses),
        "all rounded": under({}),
        "top": under(spared(maps, scores, share)),
        "random": [under(drawn(maps, share, seed)) for seed in range(draws)],
    }

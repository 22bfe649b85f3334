"""From the visual tokens that stay to the stream that goes on: text between them, batch rows of equal length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.errors import BudgetError
from laconic.ops.select import best
from laconic.stream.contract import Cut, Policy, Stream


def check_protected(protected: int, count: int) -> None:
    """Raise `BudgetError` where more visual tokens are `protected` than the `count` that may stay."""
    if protected > count:
        raise BudgetError(
            f"{protected} visual tokens are protected, but the budget leaves {count}. Raise it or protect less."
        )


def choose(scores: Tensor, count: int, must: Tensor | None = None) -> Tensor:
    """The `count` best of `scores` [v], ascending, [count]; equal scores go to the earlier one, `must` [v] bool goes first.

    Raises:
        BudgetError: more must stay than may.
    """
    if must is not None and bool(must.any()):
        check_protected(int(must.sum()), count)
        scores = scores.float().masked_fill(must, float("inf"))
    return best(scores[None], count)[0].nonzero()[:, 0]


def assemble(
    stream: Stream,
    kept: Sequence[Tensor],
    values: Sequence[Tensor | None] | None = None,
    *,
    positions: Policy = "gather",
    separators: bool = True,
    order: str = "stream",
    merged: Tensor | None = None,
    scores: Sequence[Tensor] | None = None,
) -> Cut:
    """The cut that keeps the visual tokens `kept`, and all text.

    Args:
        kept: for every batch row the rows of the stream whose visual tokens stay, [k] each, without doubles.
        values: what these tokens become, [k, D] each; None (also for one batch row): what they are.
        positions: see `Cut`.
        separators: line ends and the like stay.
        order: "stream": rows stay in their order; "given": the visual tokens of a batch row stand in the order of `kept`, on
            the places that the same tokens would take in the order of the stream.
        merged: see `Cut`.
        scores: for every batch row what `stream.images` were ranked by, [v] each; for the trace only.

    Raises:
        BudgetError: a protected token is not among `kept`.
    """
    batch, n, width = stream.hidden.shape
    device = stream.hidden.device
    stays = ~stream.shown if separators else ~stream.visual.mask.gather(1, stream.place)
    if stream.valid is not None:
        stays &= stream.valid
    rows: list[Tensor] = []
    for b, chosen in enumerate(kept):
        mask = stays[b].clone()
        mask[chosen] = True
        if stream.protected is not None and bool((stream.protected[b] & ~mask).any()):
            raise BudgetError(
                f"{int((stream.protected[b] & ~mask).sum())} protected visual tokens would be removed; this method cannot "
                "spare them. Protect text only, or use a method that ranks tokens."
            )
        row = mask.nonzero()[:, 0]
        if order == "given":
            at = torch.isin(row, chosen).nonzero()[:, 0]
            row[at] = chosen.to(row)
        rows.append(row)
    most = max(len(row) for row in rows)
    keep = torch.full((batch, most), -1, dtype=torch.long, device=device)
    for b, row in enumerate(rows):
        keep[b, most - len(row) :] = row
    new = None
    if values is not None and any(value is not None for value in values):
        new = stream.hidden.gather(1, keep.clamp(min=0)[..., None].expand(-1, -1, width)).clone()
        for b, (chosen, value) in enumerate(zip(kept, values, strict=True)):
            if value is not None:
                place = torch.full((n,), -1, dtype=torch.long, device=device)
                place[chosen] = torch.arange(len(chosen), device=device)
                at = (keep[b] >= 0) & (place[keep[b].clamp(min=0)] >= 0)
                new[b, at] = value.to(new.dtype)[place[keep[b][at]]]
    ranked = None
    if scores is not None:
        ranked = torch.full((batch, n), float("nan"), device=device)
        for b, score in enumerate(scores):
            ranked[b, stream.shown[b]] = score.detach().to(ranked)
    return Cut(keep, new, positions, merged, ranked)

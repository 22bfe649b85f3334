"""View by view: how many tokens each may keep, which vectors stand for them, and the cut that puts the views together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.families.vision import Visual, VisualSpan
from laconic.stream.assemble import assemble
from laconic.stream.contract import Cut, Policy, Stream, TokenMethod
from laconic.stream.shares import spread


@dataclass(frozen=True)
class Reduced:
    """What becomes of the n tokens of one view.

    Attributes:
        kept: the tokens that stay, in their new order, as numbers within the view, [k].
        to: the token into which each was merged, its own number where it stays, -1 where it is dropped, [n].
        values: what the kept tokens become, as the decoder reads them, [k, D]; None: as they are.
        scores: what tokens were ranked by, [n]; None where nothing was ranked.
    """

    kept: Tensor
    to: Tensor
    values: Tensor | None = None
    scores: Tensor | None = None

    @staticmethod
    def keeping(kept: Tensor, n: int, scores: Tensor | None = None) -> Reduced:
        """The tokens `kept`, ascending, of n; the others are dropped."""
        to = torch.full((n,), -1, dtype=torch.long, device=kept.device)
        to[kept] = kept
        return Reduced(kept, to, scores=scores)


def counts(stream: Stream, method: TokenMethod) -> dict[int, int]:
    """How many tokens every view may keep before layer 0, by its number in `stream.visual.spans`: the same share of each.

    Raises:
        BudgetError: a view would keep no token.
    """
    result: dict[int, int] = {}
    for row in range(len(stream.hidden)):
        mine = [i for i, span in enumerate(stream.visual.spans) if span.row == row and len(span.tokens)]
        sizes = [len(stream.visual.spans[i].tokens) for i in mine]
        rows = stream.hidden.shape[1] if stream.valid is None else int(stream.valid[row].sum())
        if mine:
            mean = method.allowance(sum(sizes), rows - sum(sizes), stream.entry_bytes)
            result |= zip(mine, spread(int(mean + 0.5), sizes, sizes), strict=True)
    return result


def vectors(visual: Visual, span: VisualSpan) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The vectors that tokens of a view are mixed from, and the map that turns a mixture into the decoder's input.

    Returns:
        where a token is one patch: encoder vectors [n, C] and the projector; where the model merges or resamples patches:
        features after the projector [n, D], and the identity.
    """
    if span.resampled or visual.family.merges or tuple(span.patches.shape) != span.grid:
        return visual.features(span), lambda x: x
    return visual.pool(span, visual.patches(span)), visual.project


def by_view(stream: Stream, reduce: Callable[[int, VisualSpan, Tensor], Reduced], positions: Policy = "renumber") -> Cut:
    """The cut before layer 0 that reduces every view separately. Tokens are in the order that `reduce` gives, view after
    view; where crops share the lines of one canvas, all stay in the order of the prompt, because line ends would otherwise
    end up within other crops.

    Args:
        reduce: called with the number of a view, the view, and which of its tokens are protected, bool [n].
        positions: renumbered ("renumber"), or those that the kept tokens had ("gather").
    """
    batch, n, _ = stream.hidden.shape
    device = stream.hidden.device
    must = torch.zeros(batch, n, dtype=torch.bool, device=device) if stream.protected is None else stream.protected
    kept: list[list[Tensor]] = [[] for _ in range(batch)]
    values: list[list[Tensor]] = [[] for _ in range(batch)]
    merged = torch.arange(n, device=device).repeat(batch, 1)
    scores = torch.zeros(batch, n, device=device)
    rows = torch.empty(batch, stream.visual.mask.shape[1], dtype=torch.long, device=device)
    rows.scatter_(1, stream.place, torch.arange(n, device=device).expand(batch, -1))
    changed = ranked = False
    for i, span in enumerate(stream.visual.spans):
        if not len(span.tokens):
            continue
        b, at = span.row, rows[span.row, span.tokens.to(device)]
        view = reduce(i, span, must[b, at])
        kept[b].append(at[view.kept])
        values[b].append(stream.hidden[b, at[view.kept]] if view.values is None else view.values.to(stream.hidden))
        merged[b, at] = torch.where(view.to < 0, -1, at[view.to.clamp(min=0)])
        changed |= view.values is not None
        if view.scores is not None:
            scores[b, at], ranked = view.scores.to(scores), True
    none = rows.new_empty(0)
    unbroken = all(span.stop - span.start == len(span.tokens) for span in stream.visual.spans)
    return assemble(
        stream,
        [torch.cat([none, *row]) for row in kept],
        [torch.cat(row) if row else None for row in values] if changed else None,
        positions=positions,
        order="given" if unbroken else "stream",
        merged=merged,
        scores=[scores[b, stream.shown[b]] for b in range(batch)] if ranked else None,
    )

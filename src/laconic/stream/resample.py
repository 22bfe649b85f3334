"""Cuts in which other tokens take the place of all visual ones, and the rows of the stream that carry them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from laconic.errors import BudgetError
from laconic.stream.assemble import assemble
from laconic.stream.clips import Clip
from laconic.stream.grids import refuse_protected
from laconic.stream.stream import Cut, Stream


def resampled(
    stream: Stream, name: str, made: Callable[[int], Iterable[tuple[Tensor, Tensor]]], order: str = "stream"
) -> Cut:
    """The cut after which other tokens stand where visual ones stood; positions are renumbered.

    Args:
        name: of the method, for messages.
        made: of a batch row, piece by piece (a view, a segment ...) in the order of the prompt: the rows of the stream that
            carry its tokens, [m], and the tokens, [m, D].
        order: see `assemble`; with "stream" the rows of a piece must ascend.

    Raises:
        BudgetError: visual tokens are protected, or what `made` raises.
    """
    refuse_protected(stream, name)
    kept, values = [], []
    for row in range(len(stream.hidden)):
        carriers, tokens = [stream.images(row)[:0]], [stream.hidden[row, :0].float()]
        for rows, new in made(row):
            carriers.append(rows)
            tokens.append(new)
        kept.append(torch.cat(carriers))
        values.append(torch.cat(tokens))
    return assemble(stream, kept, values, positions="renumber", order=order)


def first_rows(name: str, clip: Clip, begin: int, end: int, count: int, instead: str) -> Tensor:
    """The first `count` rows of the stream that show frames `begin` to before `end` of a clip, ascending, [count].

    Args:
        name: of the method, `instead`: what a user may do where they are too few, for the message.

    Raises:
        BudgetError: these frames have fewer tokens.
    """
    rows = clip.rows[begin:end].flatten()
    if len(rows) < count:
        frames = "frame" if end - begin == 1 else f"{end - begin} frames"
        raise BudgetError(f"{name}: {count} tokens are more than the {len(rows)} of the {frames} they stand for; {instead}.")
    return rows[:count].sort().values

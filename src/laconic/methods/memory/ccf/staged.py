"""Gradients in stages: memories are cut from the graph, gather their gradients, and are backpropagated one by one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from torch import Tensor

S = TypeVar("S")


def staged(
    segments: Sequence[S],
    encode: Callable[[S], Tensor],
    decode: Callable[[int, list[Tensor]], Tensor | None],
    reservoir: int,
    rng: random.Random,
) -> Iterator[Tensor]:
    """Terms of a loss, each of which has to be backpropagated before the next is asked for.

    At most ``reservoir + 1`` graphs of the encoder live at once, however many segments there are: after a segment beyond the
    reservoir, one of those in it, or the new one, takes what gradient it has and goes; which ones stay is uniformly random.
    A reservoir of all segments gives the true gradient; a smaller one leaves out what later terms would have added.

    Args:
        encode: the memory of a segment, any tensor.
        decode: the loss after the first t segments, from their memories; None where there is none.
    """
    leaves: list[Tensor] = []
    graphs: dict[int, Tensor] = {}
    kept: list[int] = []

    def flush(number: int) -> Iterator[Tensor]:
        made, gradient = graphs.pop(number), leaves[number].grad
        if gradient is not None:
            term = (made * gradient).sum()
            yield term - term.detach()  # the loss itself was counted when it was decoded

    for t, segment in enumerate(segments):
        if (loss := decode(t, leaves)) is not None:
            yield loss
        graphs[t] = encode(segment)
        leaves.append(graphs[t].detach().requires_grad_())
        if t < reservoir:
            kept.append(t)
            continue
        drawn, gone = rng.randint(0, t), t
        if drawn < reservoir:
            gone, kept[drawn] = kept[drawn], t
        yield from flush(gone)
    if (loss := decode(len(segments), leaves)) is not None:
        yield loss
    for number in sorted(kept, reverse=True):
        yield from flush(number)

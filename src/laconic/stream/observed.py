"""What a layer that has run attended to, mapped to the rows of the stream after it."""

from __future__ import annotations

import torch
from torch import Tensor

from laconic.cache.observe import Observation
from laconic.errors import SessionError
from laconic.stream.stream import Stream


def observation(stream: Stream) -> Observation:
    """What the layer before `stream.layer` attended to.

    Raises:
        SessionError: it was not observed.
    """
    if stream.obs is None:
        raise SessionError(
            f"layer {stream.layer - 1} was not observed, so its attention is not known before {stream.layer}."
        )
    return stream.obs


def at_rows(stream: Stream, entries: Tensor) -> Tensor:
    """One number per entry of the observed layer, [B, n], stored ones first -> those of the stream's rows, [B, m].

    Rows and entries of the pass agree unless another method cut before this layer; matching by token works in either case.
    """
    obs = observation(stream)
    new = slice(entries.shape[-1] - obs.new, None)
    tokens = obs.index[:, 0, new].long() - obs.step.start
    if obs.valid is not None:
        tokens = tokens.masked_fill(~obs.valid[:, 0, new], stream.ids.shape[1])  # padding matches nothing
    column = torch.zeros(len(tokens), stream.ids.shape[1] + 1, dtype=torch.long, device=tokens.device)
    column.scatter_(1, tokens, torch.arange(obs.new, device=tokens.device).expand_as(tokens))
    return entries[:, new].gather(1, column.gather(1, stream.place))

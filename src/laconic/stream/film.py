"""Videos that are read as they come, piece by piece: what a network that does so is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.errors import UnsupportedModelError
from laconic.stream.clips import Clip
from laconic.stream.stream import Stream

RATES = 32
"""Frequencies of a time's code."""


class Film(Protocol):
    """What a method holds of one video while it is read."""

    def add(self, tokens: Tensor, states: Sequence[Tensor]) -> None:
        """The next frames.

        Args:
            tokens: as the decoder would read them, [t, h, w, D].
            states: after the embeddings and after every encoder layer, [t, N, C] each; may be empty where the method reads
                tokens alone.
        """
        ...

    def soft(self) -> Tensor:
        """What the decoder reads of all frames so far, [m, D]. More frames may come after it."""
        ...


@runtime_checkable
class ReadsFilms(Protocol):
    """A method that reads a video piece by piece."""

    def film(self, model: PreTrainedModel, question: Tensor) -> Film:
        """A new video; `question`: embeddings of the prompt's text, [q, D]. `attach` came before."""
        ...


class TimeToken(nn.Module):
    """``W [code(begin) ; code(end)] + b``: from when to when, in frames, as one token; sin-cos codes of both times.

    Args:
        width: of the token.
    """

    def __init__(self, width: int):
        super().__init__()
        self.out = nn.Linear(4 * RATES, width)
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)

    def forward(self, begin: int, end: int) -> Tensor:
        """[width]."""
        rates = 10000.0 ** -(torch.arange(RATES, device=self.out.weight.device) / RATES)
        angles = torch.tensor([begin, end], dtype=rates.dtype, device=rates.device)[:, None] * rates
        token: Tensor = self.out(torch.cat([angles.sin(), angles.cos()], 1).flatten())
        return token


def followed(asks: Tensor, counts: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of different length, each followed at once by the same tokens, and only then by padding.

    Args:
        asks: [Q, L, D], of which row q has ``counts[q]``. `tail`: [k, D].

    Returns:
        [Q, L + k, D], and where in it the tail stands, [Q, k].
    """
    rows = torch.cat([asks, asks.new_zeros(len(asks), len(tail), asks.shape[-1])], 1)
    at = counts[:, None] + torch.arange(len(tail), device=asks.device)
    return rows.scatter(1, at[..., None].expand(-1, -1, asks.shape[-1]), tail.to(asks).expand(len(asks), -1, -1)), at


def picked(x: Tensor, at: Tensor) -> Tensor:
    """Rows ``at`` [Q, k] of x [Q, T, D], [Q, k, D]."""
    return x.gather(1, at[..., None].expand(-1, -1, x.shape[-1]))


def gridded(stream: Stream, row: int, clip: Clip, name: str) -> Tensor:
    """The visual tokens of a clip in the stream as grids, fp32 [T, h, w, D].

    Raises:
        UnsupportedModelError: the model cropped cells away, so they are no grid. `name`: of the method, for the message.
    """
    rows, cols = clip.spans[0].grid
    if clip.rows.shape[1] != rows * cols:
        raise UnsupportedModelError(
            f"{name} reads whole grids, and this view has {clip.rows.shape[1]} tokens of {rows} x {cols} cells; use a "
            "method that ranks tokens."
        )
    return stream.hidden[row, clip.rows].float().unflatten(1, (rows, cols))

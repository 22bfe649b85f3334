"""EAS's adapters: a low-rank map that mixes the prompt's mean into every token (PIA; arXiv 2403.15226, section 3.2).

The map is linear once the prompt is known, so it can be multiplied into the weights that read its output.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.errors import SessionError
from laconic.families import family_of

GROUPS = 2
Over = Callable[[Tensor], Tensor | None]
"""An adapter's input [B, T, D] -> the rows of it that its means run over, [B, T]; None: all."""


class Grouped(nn.Module):
    """A block-diagonal map h -> D of `GROUPS` blocks, with bias."""

    def __init__(self, width: int, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(GROUPS, size // GROUPS, width // GROUPS))
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, z: Tensor) -> Tensor:
        """[..., h] -> [..., D]."""
        return torch.einsum("...gi,goi->...go", z.unflatten(-1, (GROUPS, -1)), self.weight).flatten(-2) + self.bias

    def dense(self) -> Tensor:
        """The whole matrix, [D, h]."""
        return torch.block_diag(*self.weight)


class Adapter(nn.Module):
    """PIA: ``y = u + s (w0 B + w1 D) z`` for u [B, T, D]; z is A u in a kept layer, ``(z_g + C u) / 2`` in a skipped one,
    where z_g is the mean of A u over the prompt. ``w = softmax(R mean(u) / temperature)``.

    w and z_g are computed from the prompt; the tokens that follow reuse them until `begin` is called for another prompt.

    Args:
        size: D of the model. `width`: h, even.
        skipped: whether the layer's attention is skipped.
        random: initialise B and D by Xavier's rule, not with zeros (with zeros the adapter starts as the identity).
    """

    def __init__(
        self,
        size: int,
        width: int,
        skipped: bool = False,
        *,
        scale: float = 1.0,
        temperature: float = 10.0,
        dropout: float = 0.1,
        random: bool = False,
    ):
        super().__init__()
        if width % GROUPS or size % GROUPS:
            raise ValueError(f"width={width} and the model's size={size} must be multiples of {GROUPS}.")
        self.scale, self.temperature = scale, temperature
        self.down, self.up0, self.up1 = nn.Linear(size, width), Grouped(width, size), Grouped(width, size)
        self.own = nn.Linear(size, width) if skipped else None
        self.router, self.dropout, self.random = nn.Linear(size, 2), nn.Dropout(dropout), random
        self._draw()
        self.begin()

    def _draw(self) -> None:
        """Initialise all but the router."""
        for linear in (self.down, self.own):
            if linear is not None:
                nn.init.xavier_uniform_(linear.weight)
                nn.init.zeros_(linear.bias)
        if self.random:
            for up in (self.up0, self.up1):
                for block in up.weight.unbind():
                    nn.init.xavier_uniform_(block)

    def reset(self) -> None:
        """Start over with other weights, as a new adapter would."""
        for up in (self.up0, self.up1):
            nn.init.zeros_(up.weight)
            nn.init.zeros_(up.bias)
        self.router.reset_parameters()
        self._draw()

    def begin(self, over: Tensor | Over | None = None) -> None:
        """Start a new prompt; `over` [B, T]: the tokens that its means run over, or what says so once it runs; None: all."""
        self._over = over
        self.mix: Tensor | None = None
        self.message: Tensor | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D], in its own type; the result has that of `hidden`."""
        u = hidden.to(self.down.weight)
        if self.mix is None:
            over = self._over(u) if callable(self._over) else self._over
            self.mix = (self.router(_mean(u, over)) / self.temperature).softmax(-1)
            self.message = None if self.own is None else _mean(self.down(u), over)
            self._over = None
        z = self.down(u) if self.own is None else 0.5 * (self.message[:, None] + self.own(u))  # type: ignore[index]
        z = self.dropout(z)
        w0, w1 = self.mix[:, None, :1], self.mix[:, None, 1:]
        return (u + self.scale * (w0 * self.up0(z) + w1 * self.up1(z))).to(hidden)

    def linear(self) -> tuple[Tensor, Tensor]:
        """(M [D, D], b [D]) with ``y = M u + b`` for the single sequence whose prompt ran last.

        Raises:
            SessionError: no prompt has run, or several ran at once.
        """
        if self.mix is None or len(self.mix) != 1:
            raise SessionError("an adapter folds for one prompt: run it as a batch of one first, then fold.")
        w0, w1 = self.mix[0]
        up = w0 * self.up0.dense() + w1 * self.up1.dense()
        bias = w0 * self.up0.bias + w1 * self.up1.bias
        inner: Tensor = self.down.bias
        matrix = up @ self.down.weight
        if self.own is not None:
            assert self.message is not None
            matrix, inner = up @ (0.5 * self.own.weight), 0.5 * (self.own.bias + self.message[0])
        return torch.eye(len(matrix)).to(matrix) + self.scale * matrix, self.scale * (up @ inner + bias)


def _mean(x: Tensor, over: Tensor | None) -> Tensor:
    """[B, T, D] -> [B, D], over the rows in `over` [B, T]."""
    if over is None:
        return x.mean(1)
    mask = over.to(x)[..., None]
    return (x * mask).sum(1) / mask.sum(1).clamp(min=1)


class Adapters(nn.Module):
    """Adapters of one model, and which of its attentions they replace (a list that belongs to a task).

    Args:
        size, depth: of the model. `skip`: layers without attention; layer 0 must keep its attention: positions are counted
            there.
        width, skip_width: of adapters in kept and in skipped layers (8 and 32 for LaVIN, 128 and 128 or 256 for LLaVA).
        both: every layer but the first has both kinds, for the search.
        options: `scale`, `temperature`, `dropout`, `random` of `Adapter`.
    """

    def __init__(
        self,
        size: int,
        depth: int,
        skip: Collection[int] = (),
        *,
        width: int = 8,
        skip_width: int = 32,
        both: bool = False,
        **options: Any,
    ):
        super().__init__()
        wrong = [layer for layer in skip if not 0 < layer < depth]
        if wrong:
            raise ValueError(f"skip={sorted(skip)}: layer {wrong[0]} cannot be skipped; choose from 1..{depth - 1}.")
        self.skip, self.depth = tuple(sorted(skip)), depth
        kept = [i for i in range(depth) if both or i not in self.skip]
        skipped = range(1, depth) if both else self.skip
        self.kept = nn.ModuleDict({str(i): Adapter(size, width, **options) for i in kept})
        self.skipped = nn.ModuleDict({str(i): Adapter(size, skip_width, True, **options) for i in skipped})

    @classmethod
    def of(cls, model: PreTrainedModel, skip: Collection[int] = (), **settings: Any) -> Adapters:
        """For `model`, on its device; fp32, whatever the model's type is."""
        stack = family_of(model).stack(model)
        made = cls(stack.config.hidden_size, len(stack.layers), skip, **settings)  # type: ignore[arg-type]
        return made.to(next(stack.parameters()).device)

    def begin(self, over: Tensor | Over | None = None) -> None:
        """Start a new prompt in all adapters; see `Adapter.begin`."""
        for adapter in self.each():
            adapter.begin(over)

    def prune(self, skip: Collection[int]) -> None:
        """Keep the adapters of both kinds that are needed while the layers `skip` have no attention."""
        self.skip = tuple(sorted(skip))
        for layer in range(self.depth):
            found = self.kept if layer in self.skip else self.skipped
            if str(layer) in found:
                del found[str(layer)]

    def reset(self) -> None:
        """Draw all adapters anew, as when they were made."""
        for adapter in self.each():
            adapter.reset()

    def each(self) -> Iterator[Adapter]:
        """All adapters."""
        for found in (*self.kept.values(), *self.skipped.values()):
            assert isinstance(found, Adapter)
            yield found

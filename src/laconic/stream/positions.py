"""Rotary positions of a shortened stream: gathered, renumbered or given; and what that means for the tokens that follow.

Where a pass renumbered positions, later tokens continue from there, layer by layer. How far a layer is behind transformers'
own count is kept in its state as `shift` [B], so that it follows batch changes and is saved with the cache.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.cache.cache import CompressedCache
from laconic.cache.layer import CompressedLayer
from laconic.errors import UnsupportedModelError
from laconic.families.rotary import phases
from laconic.step import Step
from laconic.stream.stream import Policy

SHIFT = "shift"


class Positions(threading.local):
    """Keeps `step.position_ids` right from layer to layer of one pass; every thread has its own."""

    def __init__(self, stack: PreTrainedModel):
        self.stack = stack
        self._counted_apart = False
        self._earlier: list[Tensor | None] = []
        self._shift: Tensor | None = None

    def adopt(self, cache: CompressedCache) -> list[int]:
        """Another cache is used from now on; returns its layers whose positions differ from those of layer 0."""
        self._counted_apart = any(SHIFT in _state(cache, layer) for layer in cache.layer_ids)
        return [layer for layer in range(1, len(cache.layers)) if _lags(cache, layer)] if self._counted_apart else []

    def begin(self, cache: CompressedCache, step: Step) -> bool:
        """A pass comes to the decoder; true if the decoder has to get other positions than transformers counted."""
        self._shift, self._earlier = None, []
        step.shared["last"] = step.position_ids[..., -1]
        if not self._counted_apart:  # nearly every decoded token
            return False
        self._earlier = [_shift(cache, layer) for layer in range(len(cache.layers))]
        self._shift = self._earlier[0]
        if self._shift is None:
            return False
        step.position_ids = step.position_ids - self._shift[:, None]
        return True

    def at(self, layer: int, step: Step) -> None:
        """The stream comes to `layer`, whose positions an earlier pass may have shifted against those of the layer
        before."""
        if not self._earlier:
            return
        shift, before = self._earlier[layer], self._shift
        if shift is before or (shift is not None and before is not None and torch.equal(shift, before)):
            return
        lag = -before if shift is None else shift if before is None else shift - before  # type: ignore[operator]
        step.position_ids = step.position_ids - lag[:, None]
        self._shift, step.moved = shift, True

    def cut(self, layer: int, step: Step, policy: Policy | Tensor) -> None:
        """`step` was shortened before `layer`, and its positions gathered; make them what `policy` says.

        Raises:
            UnsupportedModelError: positions [B, m] for a model whose tokens have several.
        """
        several = step.position_ids.ndim == 3
        if isinstance(policy, Tensor):
            if several:
                raise UnsupportedModelError(
                    "this model's tokens have several positions each (M-RoPE); merged ones cannot be given."
                )
            step.position_ids = policy
        elif policy == "renumber" and not several:
            step.position_ids = self._counted(step)
        else:
            return
        step.moved = layer > 0

    def _counted(self, step: Step) -> Tensor:
        """Positions without gaps, from that of each sequence's first real token on, [B, m]."""
        now = step.position_ids
        real = torch.ones_like(now, dtype=torch.bool) if step.valid is None else step.valid
        first = now.masked_fill(~real, torch.iinfo(now.dtype).max).amin(-1, keepdim=True)
        return (first + real.long().cumsum(-1) - 1).clamp(min=0)

    def note(self, cache: CompressedCache, layer: int, step: Step) -> None:
        """A prefill pass runs `layer` at these positions: later passes continue from the last of them."""
        if step.position_ids.ndim == 3 or not step.prefill:
            return
        shift = (step.shared["last"] - step.position_ids[..., -1]).expand(len(step.real))
        if bool(shift.any()) or _shift(cache, layer) is not None:
            _state(cache, layer)[SHIFT] = shift.contiguous()
            self._counted_apart = True

    def phases(self, step: Step, hidden: Tensor) -> tuple[Tensor, ...]:
        """(cos, sin) of the stream's positions, by the frequencies of a pass over just these: a decoder takes them by the
        positions that it is given, and later tokens continue from here. Layers that share positions share the phases."""
        positions, found = step.shared.get("phases", (None, ()))
        if positions is not step.position_ids:
            rotary: Any = self.stack.rotary_emb
            found = phases(rotary, hidden, step.position_ids, within=step.position_ids)
            step.shared["phases"] = step.position_ids, found
        return found  # type: ignore[no-any-return]


def _lags(cache: CompressedCache, layer: int) -> bool:
    """Whether the positions of `layer` differ from those of layer 0."""
    shift, first = _shift(cache, layer), _shift(cache, 0)
    return shift is not None and (first is None or not torch.equal(shift, first))


def _state(cache: CompressedCache, layer: int) -> dict[str, Tensor]:
    found = cache.layers[layer]
    return found.state if isinstance(found, CompressedLayer) else {}


def _shift(cache: CompressedCache, layer: int) -> Tensor | None:
    """How far a layer is behind transformers' count; one without a shift of its own, as far as layer 0."""
    shift = _state(cache, layer).get(SHIFT)
    return _state(cache, 0).get(SHIFT) if shift is None else shift

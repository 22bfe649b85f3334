"""Hidden states for methods that read them: what a layer gets, before and after its norm, for as long as the layer runs."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from laconic.seams import Host, Order, Seam


@dataclass
class Hidden:
    """What one layer reads in one pass; pseudo tokens come after the pass's own T tokens.

    Attributes:
        residual: the residual stream in front of the layer, [B, T + P, hidden].
        normalised: the same after the layer's norm, which is what attention reads, [B, T + P, hidden].
    """

    residual: torch.Tensor
    normalised: torch.Tensor

    def without(self, start: int, stop: int) -> Hidden:
        """The same without the rows `start` to `stop`."""
        return Hidden(*(torch.cat([x[:, :start], x[:, stop:]], 1) for x in (self.residual, self.normalised)))


class _OfThread(threading.local):
    """What the layer that runs in this thread reads."""

    residual: torch.Tensor | None = None


class HiddenSeam(Seam):
    """Notes the hidden states of the layer that runs in the cache, and drops them when its attention has run.

    It comes after the stream seam, whose cuts on the same modules it is to see.
    """

    order = Order.HIDDEN

    def __init__(self, host: Host, methods: tuple[Any, ...]):
        super().__init__(host, methods)
        self._here = _OfThread()

    def prepare(self) -> None:
        """Find the attention of every layer now, so that a model without one is refused before any work."""
        self._attentions = [self.host.family.attention(layer) for layer in self.host.layers]

    def install(self, restore: ExitStack) -> None:
        for layer, attention in zip(self.host.layers, self._attentions, strict=True):
            for handle in (
                layer.register_forward_pre_hook(self._before_layer, with_kwargs=True),
                attention.register_forward_pre_hook(self._before_attention, with_kwargs=True),
                attention.register_forward_hook(self._after_attention, always_call=True),
            ):
                restore.callback(handle.remove)

    def _before_layer(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._here.residual = _hidden_states(args, kwargs)

    def _before_attention(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call, residual = self.host.running.call, self._here.residual
        if call is not None and residual is not None:
            call.cache.hidden = Hidden(residual, _hidden_states(args, kwargs))

    def _after_attention(self, module: nn.Module, args: Any, output: Any) -> None:
        call, self._here.residual = self.host.running.call, None
        if call is not None:
            call.cache.hidden = None


def _hidden_states(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    states = args[0] if args else kwargs["hidden_states"]
    assert isinstance(states, torch.Tensor)
    return states

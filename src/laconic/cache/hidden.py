"""Hidden states for methods that read them: what a layer gets, before and after its norm, for as long as the layer runs."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from laconic.cache.cache import CompressedCache
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


class HiddenSeam(Seam):
    """Notes the hidden states of the layer that runs in the cache, and drops them when its attention has run.

    It comes after the stream seam, whose cuts on the same modules it is to see.
    """

    order = Order.HIDDEN

    def __init__(self, host: Host, methods: tuple[Any, ...]):
        super().__init__(host, methods)
        self._cache: CompressedCache | None = None
        self._residual: torch.Tensor | None = None

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
        restore.callback(self._forget)

    def adopt(self, cache: CompressedCache) -> None:
        self._cache = cache

    def _before_layer(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._residual = _hidden_states(args, kwargs)

    def _before_attention(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._cache is not None and self._residual is not None:
            self._cache.hidden = Hidden(self._residual, _hidden_states(args, kwargs))

    def _after_attention(self, module: nn.Module, args: Any, output: Any) -> None:
        self._forget()

    def _forget(self) -> None:
        self._residual = None
        if self._cache is not None:
            self._cache.hidden = None


def _hidden_states(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    states = args[0] if args else kwargs["hidden_states"]
    assert isinstance(states, torch.Tensor)
    return states

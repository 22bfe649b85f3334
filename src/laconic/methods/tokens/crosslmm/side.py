"""What CrossLMM opens around a decoder: hooks that add to what self-attention returns, and the visual tokens that they read,
which belong to the cache."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from laconic.cache.cache import CompressedCache
from laconic.cache.layer import CompressedLayer
from laconic.errors import UnsupportedModelError
from laconic.measure.session_meter import SessionMeter
from laconic.measure.stats import Stats
from laconic.methods.tokens.crosslmm.network import Side
from laconic.seams import Host, Order, Seam
from laconic.step import Step

if TYPE_CHECKING:
    from laconic.methods.tokens.crosslmm.method import CrossLMM

PARTS = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}
"""The parts of a layer of Llama's kind: what attention returns is added to what the layer read, and nothing else is."""
NAMES = ("crosslmm_keys", "crosslmm_values", "crosslmm_valid")
"""Of what a layer of the cache remembers, [B, Hkv, N, d] twice and [B, N]: what text reads, in this pass and later ones."""


class _Residual(threading.local):
    """What the layer that runs in this thread has read."""

    x: Tensor | None = None


def check_layers(layers: nn.ModuleList, numbers: Sequence[int]) -> None:
    """Raise `UnsupportedModelError` where a layer adds up something else than what it read and what attention returned."""
    for number in numbers:
        parts = {name for name, _ in layers[number].named_children()}
        if parts != PARTS or hasattr(layers[number], "residual_multiplier"):
            raise UnsupportedModelError(
                f"crosslmm adds to the stream between attention and MLP, and {type(layers[number]).__name__} has "
                f"{', '.join(sorted(parts))}, not the parts of a Llama layer; use a method that acts before the decoder."
            )


@contextmanager
def beside(layers: nn.ModuleList, numbers: Sequence[int], add: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """While open, the layers `numbers` go on with ``h + add(number, h)`` after their self-attention, where h [B, n, D] is
    what they read and what attention has added to it."""
    here = _Residual()

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        here.x = args[0] if args else kwargs["hidden_states"]

    def after(number: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            out = output[0] if isinstance(output, tuple) else output
            residual, here.x = here.x, None
            assert residual is not None
            out = out + add(number, residual + out).to(out.dtype)
            return (out, *output[1:]) if isinstance(output, tuple) else out

        return hook

    with ExitStack() as hooks:
        for number in numbers:
            layer: Any = layers[number]
            hooks.callback(layer.register_forward_pre_hook(before, with_kwargs=True).remove)
            hooks.callback(layer.self_attn.register_forward_hook(after(number)).remove)
        yield


class SideSeam(Seam):
    """Adds the inserts of one method. What text reads is kept in the state of the cache's layers, so it follows forks,
    beams, batches and saved contexts; what visual rows read is needed in the pass that brings them alone.

    It comes after the stream seam, whose cut leaves the visual tokens with the method, and which may shorten the stream
    before the layer that an insert is in.
    """

    order = Order.HIDDEN
    single = True
    methods: tuple[CrossLMM, ...]

    def __init__(self, host: Host, methods: tuple[CrossLMM, ...]):
        super().__init__(host, methods)
        self.method = methods[0]

    def prepare(self) -> None:
        if not self.method.neutral:
            check_layers(self.host.layers, self.method.net.layers)

    def install(self, restore: ExitStack) -> None:
        if not self.method.neutral:
            restore.enter_context(beside(self.host.layers, self.method.net.layers, self._add))

    def adopt(self, cache: CompressedCache) -> None:
        """Forget what a call that failed may have left."""
        self.method.here.memory, self.method.here.sides = None, {}

    def enter(self, kwargs: dict[str, Any], step: Step, ids: Tensor | None) -> dict[str, Any]:
        """What the cut has left is stored for text, after what earlier passes left."""
        left, self.method.here.memory = self.method.here.memory, None
        if left is not None:
            cache = self._cache
            with cache.figures.work(step):
                for number in self.method.net.layers:
                    visual, text = self.method.net.insert(number).sides(*left)
                    self.method.here.sides[number] = visual
                    if text is not None:
                        _remember(_layer(cache, number), text, self.host.stack.dtype)
        return kwargs

    def _add(self, number: int, hidden: Tensor) -> Tensor:
        cache = self._cache
        step, state = cache.step, _layer(cache, number).state
        assert step is not None
        shown = step.shown
        if shown is not None and shown.shape[1] < hidden.shape[1]:  # pseudo tokens, which are text, follow
            shown = pad(shown, (0, hidden.shape[1] - shown.shape[1]))
        text = Side(*(state[name] for name in NAMES)) if NAMES[0] in state else None
        with cache.figures.work(step):
            return self.method.net.insert(number)(hidden, shown, self.method.here.sides.get(number), text)

    def finish(self, step: Step, cache: CompressedCache) -> None:
        self.method.here.sides = {}

    def stats(self, stats: Stats, cache: CompressedCache, meter: SessionMeter) -> None:
        """The keys and values beside the stream are stored for every later token, as those of the stream are."""
        for layer in cache.compressed():
            stats.kv_bytes += sum(layer.state[name].nbytes for name in NAMES[:2] if name in layer.state)

    @property
    def _cache(self) -> CompressedCache:
        """Of the call that runs in this thread."""
        call = self.host.running.call
        assert call is not None
        return call.cache


def _layer(cache: CompressedCache, number: int) -> CompressedLayer:
    layer = cache.layers[number]
    assert isinstance(layer, CompressedLayer)
    return layer


def _remember(layer: CompressedLayer, side: Side, dtype: torch.dtype) -> None:
    """Store what text reads in the layer, after what it reads already."""
    assert side.valid is not None
    for name, x, axis in zip(NAMES, (side.keys.to(dtype), side.values.to(dtype), side.valid), (2, 2, 1), strict=True):
        layer.state[name] = torch.cat([layer.state[name], x], axis) if name in layer.state else x.clone()

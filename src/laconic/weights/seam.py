"""The seam of weights: applies methods before anything is hooked, and says when a prompt begins and ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from laconic.cache.cache import CompressedCache
from laconic.errors import SessionError
from laconic.measure.cost import Shape, parameters_of
from laconic.seams import Host, Order, Seam
from laconic.step import Step
from laconic.weights.hooks import PerPrompt

if TYPE_CHECKING:
    from laconic.measure.session_meter import SessionMeter
    from laconic.measure.stats import Stats
    from laconic.weights.contract import WeightMethod


class WeightSeam(Seam):
    """Applies weight methods in the order given, and counts what layers without attention cost, which the cache cannot
    see."""

    order = Order.WEIGHTS
    methods: tuple[WeightMethod, ...]

    def __init__(self, host: Host, methods: tuple[WeightMethod, ...]):
        super().__init__(host, methods)
        self.without_attention: list[int] = []
        self._applied: list[WeightMethod] = []
        self._per_prompt: list[PerPrompt] = []
        self._prompt: object | None = None
        self._decoding = False
        self.shape: Shape | None = None

    @property
    def stores_less(self) -> bool:
        """A layer without attention stores nothing."""
        return bool(self.without_attention)

    def prepare(self) -> None:
        depth = self.host.depth
        self._applied = [method for method in self.methods if not method.neutral]
        self._per_prompt = [method for method in self._applied if isinstance(method, PerPrompt)]
        for method in self._applied:
            layers = sorted(method.without_attention(depth))
            wrong = [layer for layer in layers if not 0 < layer < depth]
            if wrong:
                raise ValueError(
                    f"{method.name}: layer {wrong[0]} cannot run without attention; choose from layers 1..{depth - 1} "
                    "(positions are counted in layer 0)."
                )
            self.without_attention += layers

    def install(self, restore: ExitStack) -> None:
        restore.callback(self._forget)
        known = set(self.host.layers.modules())
        for method in self._applied:
            restore.enter_context(method.apply(self.host.model))
        if any(method.resizes for method in self._applied):
            self.shape = Shape.of(self.host.model, self.host.stack)
            known = set(self.host.layers.modules())
        for layer, block in enumerate(self.host.layers):
            if layer in self.without_attention:
                restore.callback(block.register_forward_hook(self._counter(layer)).remove)
                continue
            for module in _added(block, known):
                restore.callback(module.register_forward_hook(self._more).remove)

    def adopt(self, cache: CompressedCache) -> None:
        """Refuse a cache whose prompt is not the one that the weights are for, before the pass begins, so that the cache
        stays usable; and any call during that of another thread, whose weights it might change."""
        if not self._per_prompt:
            return
        names = " and ".join(method.name for method in self._applied)
        if self.host.running.others:
            raise SessionError(
                f"the weights of {names} depend on the prompt, so calls cannot run at once, and one of another thread is "
                "running; call the model from one thread, or use methods that leave its weights alone."
            )
        if cache.seen and cache.prompt is not self._prompt:
            raise SessionError(
                f"the weights of {names} depend on the prompt, and the prompt of this cache is not the one that ran last in "
                "this session; start again without past_key_values."
            )

    def enter(self, kwargs: dict[str, Any], step: Step, ids: Tensor | None) -> dict[str, Any]:
        """Before the other seams: they and the decoder must find the modules of this pass in place."""
        call = self.host.running.call
        if not self._per_prompt or call is None:
            return kwargs
        if step.start == 0:
            self._prompt, self._decoding = call.cache.prompt, False
            with call.cache.figures.work(step):
                for method in self._per_prompt:
                    method.before_prompt(step)
        elif not step.prefill and not self._decoding:
            self._decoding = True
            with call.cache.figures.work(step):
                for method in self._per_prompt:
                    method.before_decoding(step)
        return kwargs

    def stats(self, stats: Stats, cache: CompressedCache, meter: SessionMeter) -> None:
        """What is asked of the cache is asked of the layers that have attention; the others store nothing."""
        if self.without_attention and stats.layers:
            stats.asked *= 1 - len(set(self.without_attention) & set(stats.layers)) / len(stats.layers)

    def _counter(self, layer: int) -> Callable[[nn.Module, Any, Any], None]:
        """A post-hook that counts one layer's pass by the output's rows: the stream may be shortened right before the
        layer."""

        def count(module: nn.Module, args: Any, output: Any) -> None:
            call = self.host.running.call
            step, flops = (None, None) if call is None else (call.cache.step, call.cache.figures.flops)
            if step is None or flops is None:
                return
            hidden = output[0] if isinstance(output, tuple) else output
            batch, tokens = hidden.shape[:2]
            flops.layer(layer, batch, tokens, 0, step.prefill, weights=parameters_of(module))
            if step.shown is not None:
                flops.image(layer, float(step.shown.sum()) / batch)

        return count

    def _more(self, module: nn.Module, args: Any, output: Any) -> None:
        """Count a module that a method has put into a layer."""
        call = self.host.running.call
        if call is not None and call.cache.step is not None and call.cache.figures.flops is not None:
            call.cache.figures.flops.module(parameters_of(module), output.shape[:-1].numel(), call.cache.step.prefill)

    def _forget(self) -> None:
        self._prompt = None
        self._decoding = False


def _added(module: nn.Module, known: set[nn.Module]) -> Iterator[nn.Module]:
    """The largest modules within `module` that are new: none of `known` is in them."""
    for child in module.children():
        if known.isdisjoint(child.modules()):
            yield child
        else:
            yield from _added(child, known)

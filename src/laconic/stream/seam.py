"""The stream seam: pre-hooks on the decoder's layers that shorten hidden states, positions and rotary phases together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from laconic.cache.cache import CompressedCache
from laconic.cache.observe import Observation
from laconic.errors import UnsupportedModelError
from laconic.families.vision import Visual, shortened
from laconic.step import Step, gather
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.phases import rows_of
from laconic.stream.positions import Positions


def check_layers(layer_types: list[str], first: int, deepstack: int = 0) -> None:
    """Refuse models with other than full attention from layer `first` on: windows would count kept tokens only, and
    recurrent states would miss the others. And those that add features to the whole stream after `deepstack` layers: they
    can be shortened before the decoder, or behind those layers."""
    if 0 < first < deepstack:
        raise UnsupportedModelError(
            f"the stream would be shortened before layer {first}, but this model adds visual features to all of it after "
            f"each of its first {deepstack} layers. Shorten before layer 0, or at layer {deepstack} or later."
        )
    other = [(i, kind) for i, kind in enumerate(layer_types) if i >= first and kind != "full_attention"]
    if other:
        i, kind = other[0]
        raise UnsupportedModelError(
            f"the stream would be shortened before layer {first}, but layer {i} is {kind}, which has to see "
            "every token. Shorten later, or use a method that acts on the cache only."
        )


class Seam:
    """Shortens the stream of one session's passes, by what token methods cut and by what a cache method selects.

    Args:
        stack: the text decoder.
        methods: token methods, in the order in which they cut.
        first: the first layer whose stream a cache method may shorten; None if none does.
        cache: the cache of the running pass.
        entry_bytes: what one token of one sequence costs in the cache, over all layers.

    Attributes:
        visual: the images of the running prefill pass; None without any, while decoding and in held passes.
        shown: its visual tokens per sequence, before any cut.
    """

    def __init__(
        self,
        stack: PreTrainedModel,
        methods: Sequence[TokenMethod],
        first: int | None,
        cache: Callable[[], CompressedCache],
        entry_bytes: int,
    ):
        self.stack, self.cache, self.entry_bytes = stack, cache, entry_bytes
        layers = stack.layers
        assert isinstance(layers, nn.ModuleList)
        self.layers, depth = layers, len(layers)
        self.cutters = {i: [m for m in methods if i in m.cuts(depth)] for i in range(depth)}
        self.observed = {layer for method in methods for layer in method.observes(depth)}
        inner = [layer for layer, cutters in self.cutters.items() if layer and cutters]
        self.first = min([*inner, *([] if first is None else [first])], default=None)
        self.visual: Visual | None = None
        self.shown = 0.0
        self._positions = Positions(self.stack)
        self._seen: tuple[int, Observation] | None = None
        self._memo: dict[int, dict[Any, Any]] = {}
        self._ids: Tensor | None = None

    def install(self) -> list[RemovableHandle]:
        """Hook every layer that may get a shortened stream. Constant arguments come again at every layer, so each layer
        gathers them anew."""
        return [] if self.first is None else self._hooks(range(self.first, len(self.layers)))

    def adopt(self, cache: CompressedCache) -> list[RemovableHandle]:
        """Another cache is used from now on: the hooks that it needs beside those of `install`, because an earlier session
        left layers that count positions apart."""
        first = len(self.layers) if self.first is None else self.first
        if not any(layer < first for layer in self._positions.adopt(cache)):
            return []
        self.first = 1
        return self._hooks(range(1, first))

    def _hooks(self, layers: range) -> list[RemovableHandle]:
        return [self.layers[i].register_forward_pre_hook(self._hook(i), with_kwargs=True) for i in layers]

    # -- before the decoder ----------------------------------------------------------------------------------------
    def enter(self, kwargs: dict[str, Any], step: Step, visual: Visual | None, ids: Tensor | None) -> dict[str, Any]:
        """The decoder's arguments in this pass: cut before layer 0, and where an earlier pass moved positions, moved."""
        cache = self.cache()
        self._seen, self._memo, self._ids = None, {}, ids
        self.visual = visual if step.prefill and not step.hold else None
        cache.observer = self._observe if self.visual is not None and self.observed else None
        if self.visual is not None:
            step.shown = self.visual.mask & ~self.visual.separators
            self.shown = float(step.shown.sum()) / len(step.shown)
        if self._positions.begin(cache, step):
            kwargs = kwargs | {"position_ids": step.position_ids}
        for method in self._cutting(0):
            began = time.perf_counter()
            stream = self._stream(method, 0, self.layers[0], kwargs["inputs_embeds"], None)
            cut = method.cut(stream)
            if cut is not None:
                kwargs = shortened(kwargs, cut.keep.clamp(min=0))
                self._apply(cut, step, method, 0)
                if cut.values is not None:
                    kwargs["inputs_embeds"] = cut.values
                kwargs |= {"position_ids": step.position_ids, "attention_mask": step.valid}
            cache.compress_seconds += time.perf_counter() - began
        if self.visual is not None:
            self._positions.note(cache, 0, step)
        return kwargs

    # -- before a layer --------------------------------------------------------------------------------------------
    def _hook(self, layer: int) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
        def shorten(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            current = self.cache()
            step = current.step
            assert step is not None
            hidden = before = args[0] if args else kwargs["hidden_states"]
            if current.selected is not None:
                chosen, current.selected = current.selected, None
                hidden = gather(hidden, chosen, 1)
                step.reduce(chosen, inside=True)
            self._positions.at(layer, step)
            for method in self._cutting(layer):
                began = time.perf_counter()
                phases = self._phases(module, args, kwargs, step, hidden)
                cut = method.cut(self._stream(method, layer, module, hidden, phases))
                if cut is not None:
                    hidden = gather(hidden, cut.keep.clamp(min=0), 1) if cut.values is None else cut.values
                    self._apply(cut, step, method, layer)
                current.compress_seconds += time.perf_counter() - began
            self._seen = None
            self._positions.note(current, layer, step)
            if step.kept is None and not self._positions.moved:
                return args, kwargs
            kwargs = dict(kwargs)
            kwargs["position_embeddings"] = self._phases(module, args, kwargs, step, hidden)
            if isinstance(kwargs.get("position_ids"), Tensor):
                kwargs["position_ids"] = step.position_ids
            if hidden is not before:
                args, kwargs = ((hidden, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": hidden})
            return args, kwargs

        return shorten

    def _phases(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], step: Step, hidden: Tensor
    ) -> tuple[Tensor, ...]:
        """Rotary phases of the stream as it is now."""
        phases = kwargs.get("position_embeddings")
        if not isinstance(phases, tuple) or len(args) > 1:
            raise UnsupportedModelError(
                f"{type(module).__name__} does not take its rotary phases as the keyword position_embeddings=(cos, sin), "
                "so its stream cannot be shortened. Use a method that acts on the cache only."
            )
        if self._positions.moved:
            return self._positions.phases(step, hidden)
        return phases if step.kept is None else tuple(rows_of(phase, step.kept) for phase in phases)

    # -- shared ----------------------------------------------------------------------------------------------------
    def _cutting(self, layer: int) -> list[TokenMethod]:
        return [m for m in self.cutters[layer] if not m.neutral] if self.visual is not None else []

    def _observe(self, layer: int, look: Callable[[], Observation]) -> None:
        if layer in self.observed:
            self._seen = layer, look()

    def _stream(
        self, method: TokenMethod, layer: int, block: nn.Module, hidden: Tensor, phases: tuple[Tensor, ...] | None
    ) -> Stream:
        cache, visual, ids = self.cache(), self.visual, self._ids
        step = cache.step
        assert step is not None and visual is not None and ids is not None and step.shown is not None
        place = step.token_index(len(hidden)).long() - step.start
        protected = cache.protected
        if protected is not None:
            protected = protected.gather(1, (place + step.start).clamp(max=protected.shape[1] - 1))
        return Stream(
            layer=layer,
            depth=len(self.layers),
            block=block,
            hidden=hidden,
            place=place,
            positions=step.position_ids if step.position_ids.ndim == 3 else step.position_ids.expand(len(hidden), -1),
            valid=step.valid,
            shown=step.shown,
            protected=protected,
            visual=visual,
            ids=ids,
            seen=self._seen[1] if self._seen is not None and self._seen[0] == layer - 1 else None,
            entry_bytes=self.entry_bytes,
            phases=None if phases is None else (phases[0], phases[1]),
            memo=self._memo.setdefault(id(method), {}),
        )

    def _apply(self, cut: Cut, step: Step, method: TokenMethod, layer: int) -> None:
        """What is known per row follows the cut."""
        cache, before = self.cache(), step.position_ids.shape[-1]
        place = step.token_index(len(cut.keep)).long() - step.start
        went = torch.where(cut.keep < 0, -1, place.gather(1, cut.keep.clamp(min=0)))
        step.reduce(cut.keep, inside=layer > 0)
        self._positions.cut(layer, step, cut.positions)
        cache.trace.add(layer - 1, method.name, before, cut.keep.shape[1], went, cut.merged, cut.scores)

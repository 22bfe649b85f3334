"""The stream seam: pre-hooks on the decoder's layers that shorten hidden states, positions and rotary phases together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from laconic.cache.cache import CompressedCache
from laconic.cache.hooks import SelectsStream
from laconic.cache.observe import Observation
from laconic.errors import SessionError, UnsupportedModelError
from laconic.families import audio as audio  # importing its families registers them
from laconic.families.vision import VisionWatch, Visual, deepstack_of, encoder_depth, shortened, vision_family_of
from laconic.measure.figures import forget_early
from laconic.measure.stats import Stats
from laconic.seams import Host, Order, Seam
from laconic.step import Step, gather
from laconic.stream.labels import Labels
from laconic.stream.phases import rows_of
from laconic.stream.positions import Positions
from laconic.stream.stream import Cut, Stream

if TYPE_CHECKING:
    from laconic.measure.session_meter import SessionMeter
    from laconic.stream.contract import TokenMethod


def check_layers(layer_types: list[str], first: int, deepstack: int = 0) -> None:
    """Refuse models in which the stream cannot be shortened from layer `first` on: where any of these layers has other than
    full attention (windows would count kept tokens only, and recurrent states would miss the others), or where visual
    features are added to the whole stream after each of the first `deepstack` layers, unless it is shortened before layer 0
    or after them.
    """
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


class _Pass(threading.local):
    """What the seam knows about the pass that runs in this thread.

    Attributes:
        cache: of the pass, or of this thread's latest one.
        visual: the images of a prefill pass; None without any, while decoding and in held passes.
        shown: their visual tokens per sequence, before any cut.
        seen: an observed layer, and what it attended to. `ids`: of the pass.
    """

    cache: CompressedCache | None = None
    visual: Visual | None = None
    shown = 0.0
    seen: tuple[int, Observation] | None = None
    ids: Tensor | None = None

    def __init__(self) -> None:
        self.memo: dict[int, dict[Any, Any]] = {}


class StreamSeam(Seam):
    """Shortens the stream of a session's passes, by what token methods cut and by what a cache method selects.

    A session always opens it: a cache of an earlier session may hold layers whose positions differ (`Positions.adopt`), and
    then later passes need its hooks, whatever the methods.

    Attributes:
        first: the first layer, above 0, whose stream may be shortened; None if there is none.
    """

    order = Order.STREAM
    methods: tuple[TokenMethod, ...]

    def __init__(self, host: Host, methods: tuple[TokenMethod, ...]):
        super().__init__(host, methods)
        self.layers = host.layers
        self.first: int | None = None
        self._cutters: dict[int, list[TokenMethod]] = {}
        self._observed: set[int] = set()
        self._watch: VisionWatch | None = None
        self._pass = _Pass()
        self._restore: ExitStack | None = None
        self._positions = Positions(host.stack)

    @property
    def stores_less(self) -> bool:
        """Cut tokens are in no layer's entries from the cut on."""
        return bool(self.methods)

    # -- open ------------------------------------------------------------------------------------------------------
    def check(self) -> None:
        """Refuse models whose images laconic cannot find."""
        if self.methods:
            vision_family_of(self.host.model)

    def prepare(self) -> None:
        depth = self.host.depth
        self._cutters = {layer: [m for m in self.methods if layer in m.cuts(depth)] for layer in range(depth)}
        self._observed = {layer for method in self.methods for layer in method.observes(depth)}
        cuts = {layer for method in self.methods for layer in method.cuts(depth)}
        wrong = sorted(layer for layer in cuts if not 0 <= layer < depth)
        if wrong:
            raise ValueError(f"a method would cut before layer {wrong[0]}; this model has layers 0..{depth - 1}.")
        selecting = [m.shortens_from(depth) for m in self.host.methods if isinstance(m, SelectsStream)]
        shortened_at = sorted({*cuts, *(layer for layer in selecting if layer is not None)})
        kinds = list(getattr(self.host.stack.config, "layer_types", None) or [])
        for layer in shortened_at:
            check_layers(kinds, layer, deepstack_of(self.host.model))
        self.first = next((layer for layer in shortened_at if layer), None)

    def install(self, restore: ExitStack) -> None:
        """Watch the images, install the methods' own hooks, and hook every layer that may get a shortened stream.

        The watch comes first, so that it sees what the encoder made before a method's hook changes it. The methods' own
        hooks come before those on the layers: a method may put tokens back into the stream before this seam reads it.
        """
        self._restore = restore
        forget_early()
        self._install_labels(restore)
        if self.methods:
            depth = encoder_depth(self.host.model)
            wanted = {layer for method in self.methods for layer in method.encoder_layers(depth)}
            self._watch = VisionWatch(self.host.model, sorted(wanted))
            restore.callback(setattr, self, "_watch", None)
            restore.push(self._watch)  # before it is entered: it removes what it has registered when entering fails, too
            self._watch.__enter__()
        for method in self.methods:
            for handle in method.install(self.host.model):
                restore.callback(handle.remove)
        if self.first is not None:
            self._hook_layers(range(self.first, len(self.layers)))

    def _install_labels(self, restore: ExitStack) -> None:
        """Compute the loss here wherever logits may have fewer rows than the labels of a call."""
        depth, active = self.host.depth, [method for method in self.host.methods if not method.neutral]
        selects = [m.name for m in active if isinstance(m, SelectsStream) and m.shortens_from(depth) is not None]
        if selects or any(method.cuts(depth) for method in self.methods if not method.neutral):
            labels = Labels(self.host.model, self._step, next(iter(selects), None))
            for handle in labels.install():
                restore.callback(handle.remove)

    def _step(self) -> Step | None:
        return None if self._pass.cache is None else self._pass.cache.step

    def adopt(self, cache: CompressedCache) -> None:
        """Where another cache is used from now on: add the hooks that it needs beside those of `install`, because an earlier
        session left layers that count positions differently."""
        if cache is self._pass.cache:
            return
        self._pass.cache = cache
        first = len(self.layers) if self.first is None else self.first
        if any(layer < first for layer in self._positions.adopt(cache)):
            if self.host.running.others:
                raise SessionError(
                    "this cache counts positions by layer, as its first call in a session has to be prepared for, and other "
                    "threads' calls are running; call the model on it once before they begin."
                )
            self.first = 1
            self._hook_layers(range(1, first))

    def _hook_layers(self, layers: range) -> None:
        """Hook these layers. All from the first cut on need it: the decoder passes each layer the arguments of the whole
        prompt (positions, phases), so each one has to gather them."""
        assert self._restore is not None
        for i in layers:
            handle: RemovableHandle = self.layers[i].register_forward_pre_hook(self._hook(i), with_kwargs=True)
            self._restore.callback(handle.remove)

    # -- before the decoder ----------------------------------------------------------------------------------------
    def enter(self, kwargs: dict[str, Any], step: Step, ids: Tensor | None) -> dict[str, Any]:
        """The decoder's arguments in this pass: cut before layer 0, and moved where an earlier pass moved positions.

        Positions are put right before anything is cut, because cuts gather them; they are noted for later passes after the
        last cut, because the next token's position follows from the last row's.
        """
        cache, now = self._pass.cache, self._pass
        assert cache is not None
        visual = None if self._watch is None else self._watch.visual
        now.seen, now.memo, now.ids = None, {}, ids
        now.visual = visual if step.prefill and not step.hold else None
        cache.observer = self._observe if now.visual is not None and self._observed else None
        if now.visual is not None:
            step.shown = now.visual.mask & ~now.visual.separators
            now.shown = float(step.shown.sum()) / len(step.shown)
        if self._positions.begin(cache, step):
            kwargs = kwargs | {"position_ids": step.position_ids}
        for method in self._cutting(0):
            with cache.figures.work(step):
                cut = method.cut(self._stream(method, 0, self.layers[0], kwargs["inputs_embeds"], None))
                if cut is not None:
                    kwargs = shortened(kwargs, cut.keep.clamp(min=0))
                    self._apply(cut, step, method, 0)
                    if cut.values is not None:
                        kwargs["inputs_embeds"] = cut.values
                    kwargs |= {"position_ids": step.position_ids, "attention_mask": step.valid}
        if now.visual is not None:
            self._positions.note(cache, 0, step)
        return kwargs

    # -- before a layer --------------------------------------------------------------------------------------------
    def _hook(self, layer: int) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
        """A pre-hook for `layer`. In order: rows that a cache method selected in the layer before; the layer's own
        positions, which may differ from those of the layer before; cuts of token methods, which see both; then the layer's
        arguments."""

        def shorten(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            cache = self._pass.cache
            assert cache is not None and cache.step is not None
            step = cache.step
            hidden = before = args[0] if args else kwargs["hidden_states"]
            if cache.selected is not None:
                chosen, cache.selected = cache.selected, None
                hidden = gather(hidden, chosen, 1)
                step.reduce(chosen, inside=True)
            self._positions.at(layer, step)
            for method in self._cutting(layer):
                with cache.figures.work(step):
                    phases = self._phases(module, args, kwargs, step, hidden)
                    cut = method.cut(self._stream(method, layer, module, hidden, phases))
                    if cut is not None:
                        hidden = gather(hidden, cut.keep.clamp(min=0), 1) if cut.values is None else cut.values
                        self._apply(cut, step, method, layer)
            self._pass.seen = None  # an observation serves the layer after it alone; it holds the keys of a whole layer
            self._positions.note(cache, layer, step)
            if step.kept is None and not step.moved:
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
        if step.moved:
            if step.pseudo:
                raise SessionError(
                    "the layers of this cache are at different positions, because tokens were cut between them, and a "
                    "method that runs pseudo tokens cannot continue it; use another one, or a new cache."
                )
            return self._positions.phases(step, hidden)
        return phases if step.kept is None else tuple(rows_of(phase, step.kept) for phase in phases)

    # -- shared ----------------------------------------------------------------------------------------------------
    def _cutting(self, layer: int) -> list[TokenMethod]:
        return [m for m in self._cutters[layer] if not m.neutral] if self._pass.visual is not None else []

    def _observe(self, layer: int, look: Callable[[], Observation]) -> None:
        if layer in self._observed:
            self._pass.seen = layer, look()

    def _stream(
        self, method: TokenMethod, layer: int, block: nn.Module, hidden: Tensor, phases: tuple[Tensor, ...] | None
    ) -> Stream:
        now = self._pass
        cache, visual, ids, seen = now.cache, now.visual, now.ids, now.seen
        assert cache is not None and visual is not None and ids is not None
        step = cache.step
        assert step is not None and step.shown is not None
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
            obs=seen[1] if seen is not None and seen[0] == layer - 1 else None,
            entry_bytes=self.host.shape.kv_bytes([1] * len(self.layers)),
            phases=None if phases is None else (phases[0], phases[1]),
            memo=now.memo.setdefault(id(method), {}),
        )

    def _apply(self, cut: Cut, step: Step, method: TokenMethod, layer: int) -> None:
        """Let what is known per row follow the cut, and record it."""
        cache = self._pass.cache
        assert cache is not None
        before = step.position_ids.shape[-1]
        went = step.places(cut.keep)
        step.reduce(cut.keep, inside=layer > 0)
        self._positions.cut(layer, step, cut.positions)
        cache.trace.add(layer - 1, method.name, before, cut.keep.shape[1], went, cut.merged, cut.scores)

    # -- figures ---------------------------------------------------------------------------------------------------
    def finish(self, step: Step, cache: CompressedCache) -> None:
        """Count the visual tokens, and let go of what the pass held: the encoder's features are larger than the cache."""
        now = self._pass
        if now.visual is not None:
            cache.figures.shown += now.shown
            cache.figures.take_early()
        now.visual, now.seen, now.memo, now.ids = None, None, {}, None
        if self._watch is not None:
            self._watch.forget()

    def stats(self, stats: Stats, cache: CompressedCache, meter: SessionMeter) -> None:
        """Where no method has a budget for the cache: what share of the visual tokens was asked for, and what share ran."""
        shown = cache.figures.shown
        if meter.budgeted is not None or not self.methods or not shown or not stats.entries:
            return
        others = round(stats.tokens_in - shown)
        limited = [method for method in self.methods if not method.budget_from_parameters]
        allowed = [method.allowance(round(shown), others, cache.entry_bytes) for method in limited]
        stats.asked = min(allowed, default=shown) / shown
        stats.achieved = sum(stats.visual.values()) / (len(self.layers) * shown)

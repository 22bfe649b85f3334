"""`CompressedCache`: the cache that a session injects. transformers sees a `Cache`; methods see layers made of parts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from transformers import PretrainedConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from laconic.cache import fork, hooks, rollback
from laconic.cache.incoming import Pass
from laconic.cache.late import LateCut
from laconic.cache.layer import CompressedLayer
from laconic.cache.observe import Observation, protected_among
from laconic.cache.parts.base import DensePart
from laconic.errors import SessionError, UnsupportedModelError
from laconic.measure.figures import Figures
from laconic.measure.trace import Trace
from laconic.measure.work import Work
from laconic.step import Step

if TYPE_CHECKING:
    from laconic.cache.contract import CacheMethod
    from laconic.cache.hidden import Hidden
    from laconic.cache.storage import StorageMethod


class CompressedCache(Cache):
    """One compressed layer for every full-attention layer of the model; others keep transformers' own kind.

    Args:
        config: the text configuration; it says which layers are full attention.
        method: who shortens the layers; None stores everything.
        rotary: (layer index, positions [B, m], positions of the pass whose frequencies they are or None for the latest) ->
            (cos, sin), for methods that undo RoPE.
        trace: events are written here.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        method: CacheMethod | None = None,
        rotary: Callable[[int, torch.Tensor, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor]] | None = None,
        trace: Trace | None = None,
    ):
        layers: list[object] = list(DynamicCache(config=config).layers)
        self.layer_ids = [i for i, layer in enumerate(layers) if type(layer) is DynamicLayer]
        if not self.layer_ids:
            kinds = sorted({type(layer).__name__ for layer in layers})
            mixed = any("FullAttention" in kind for kind in kinds)
            why = "every layer keeps a recurrent state beside its keys, which laconic's layers do not hold."
            bounded = "sliding-window and linear-attention layers are bounded already and are left alone."
            raise UnsupportedModelError(
                f"{type(config).__name__} has no layer of full attention alone to compress (cache layers: "
                f"{', '.join(kinds)}): {why if mixed else bounded}"
            )
        for number, i in enumerate(self.layer_ids):
            layers[i] = CompressedLayer(self, number)
        super().__init__(layers=layers)  # type: ignore[arg-type]
        self.method, self.rotary = method, rotary
        self.storage: StorageMethod | None = None
        self.unpacked = False  # a choosing method has shortened layers that the storage method has yet to pack
        self.trace = trace if trace is not None else Trace()
        self.step: Step | None = None
        self.unfinished = False  # a pass began and did not finish: some layers may have its tokens, others not
        self.protected: torch.Tensor | None = None
        self.protection_checked = False
        self.ids: torch.Tensor | None = None
        self.ids_valid: torch.Tensor | None = None
        self.selected: torch.Tensor | None = None
        self.figures = Figures()
        self.real: list[int] = []
        self.entry_bytes = 0
        self.late = LateCut()
        self.recording_asked = False  # since the latest pass over prompt; see `rollback.begin`
        self.hidden: Hidden | None = None  # of the layer that runs, where a method reads it
        self.prompt = object()  # stands for what was read first; forks have it in common
        self.start: CompressedCache | None = None  # of a fork: what it was when it was made
        # called after every layer's attention in prefill with (decoder layer, a function that observes it)
        self.observer: Callable[[int, Callable[[], Observation]], None] | None = None
        self._looked: tuple[Observation, dict[str, torch.Tensor]] | None = None

        # decoder layers that keep transformers' own cache, layer number -> kind
        kinds = getattr(config, "layer_types", None) or [type(layer).__name__ for layer in layers]
        self.left_alone = {i: kind for i, kind in enumerate(kinds) if i not in self.layer_ids}

    @property
    def method(self) -> CacheMethod | None:
        """Who shortens the layers; None stores everything."""
        return self._method

    @method.setter
    def method(self, method: CacheMethod | None) -> None:
        # which optional hooks the method has is found out once: they are asked for in every layer of every pass
        self._method = method
        self._narrows: hooks.SparsePrefill | None = method if isinstance(method, hooks.SparsePrefill) else None
        self._selects: hooks.SelectsStream | None = method if isinstance(method, hooks.SelectsStream) else None
        self._refits: hooks.RefitsEntries | None = method if isinstance(method, hooks.RefitsEntries) else None
        self._cuts_late = isinstance(method, hooks.CutsLate) and method.cuts_late
        self._queries = method.queries_kept() if isinstance(method, hooks.KeepsQueries) else 0

    # -- views -----------------------------------------------------------------------------------------------------
    def compressed(self) -> Iterator[CompressedLayer]:
        """The layers that laconic stores."""
        for i in self.layer_ids:
            layer = self.layers[i]
            assert isinstance(layer, CompressedLayer)
            yield layer

    @property
    def seen(self) -> int:
        """Tokens that the model has seen (padding included)."""
        return next(self.compressed()).seen

    @property
    def records_past(self) -> bool:
        """Whether the caller has said, since the latest prompt, that tokens may be taken back."""
        return self.recording_asked and next(self.compressed()).record_past

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values stored in the compressed layers."""
        return sum(layer.nbytes for layer in self.compressed())

    @property
    def allocated(self) -> int:
        """Bytes of every tensor that the cache keeps in memory for its compressed layers: entries with their spare room and
        columns, what methods remember (kept queries, say), scores of a cut to come, protection, what a fork goes back to."""
        return fork.held([self])

    def kept(self, layer: int, head: int = 0, row: int = 0) -> torch.Tensor:
        """Token indices that decoder layer `layer`, KV head `head` stores now for batch row `row`, ascending [m]."""
        if layer not in self.layer_ids:
            raise ValueError(f"layer={layer} is not compressed; compressed layers: {self.layer_ids}.")
        found = self.layers[layer]
        assert isinstance(found, CompressedLayer)
        return found.kept(row, head)

    # -- one context, many questions -------------------------------------------------------------------------------
    def __deepcopy__(self, memo: dict[int, Any]) -> CompressedCache:
        """What is stored and known is copied; the methods, and the model behind `rotary`, are not the cache's own."""
        memo.update({id(x): x for x in (self.method, self.storage, self.rotary, self.observer)})
        twin = memo[id(self)] = object.__new__(type(self))
        vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin

    def fork(self) -> CompressedCache:
        """A cache that starts with what this one holds, which is shared, not copied, and goes its own way. The prompt counts
        as complete: what waits for its end (packing, say) happens now. A `SessionError` in the middle of a pass."""
        return fork.forked(self)

    def rewind(self) -> None:
        """Forget what came after `fork()` made this cache; a `SessionError` if it is no fork."""
        fork.rewound(self)

    # -- what is known per sequence follows the layers -------------------------------------------------------------
    def crop(self, tokens_to_remove: int) -> None:
        rollback.crop(self, int(-tokens_to_remove))  # transformers 5.16 passes a tensor

    def selected_rows(self, rows: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """The layers have taken these rows of the batch."""
        if self.real:
            self.real = rows(torch.tensor(self.real)).tolist()
        for name in ("protected", "ids", "ids_valid"):
            of = getattr(self, name)
            setattr(self, name, None if of is None else rows(of))

    def reset(self) -> None:
        super().reset()
        self.real, self.protected, self.ids, self.ids_valid = [], None, None, None
        self.figures, self.late = Figures(), LateCut()
        self.trace.clear()
        self.protection_checked = self.unfinished = self.unpacked = self.recording_asked = False

    def bytes_per_entry(self, keys: torch.Tensor, values: torch.Tensor) -> int:
        """Bytes that one token of one sequence costs over all compressed layers."""
        per_head = keys.shape[-1] * keys.itemsize + values.shape[-1] * values.itemsize
        self.entry_bytes = len(self.layer_ids) * keys.shape[1] * per_head
        return self.entry_bytes

    # -- what happens around a layer's attention -------------------------------------------------------------------
    def _work(self) -> Work:
        """While it is open, the methods work for the running pass."""
        assert self.step is not None
        return self.figures.work(self.step)

    def _acts(self) -> CacheMethod | None:
        """The method that chooses entries, where it acts in this pass."""
        step, method = self.step, self.method
        assert step is not None
        return None if method is None or step.hold or method.neutral else method

    def _cuts(self) -> CacheMethod | None:
        """The same, where this pass brings prompt."""
        return self._acts() if self.step is not None and self.step.prefill else None

    def before_prefill(self, layer: CompressedLayer, new: Pass) -> torch.Tensor | None:
        """Positions [B, m] of this pass that take part in the layer's attention; None means all."""
        self.bytes_per_entry(new.keys, new.values)
        self._looked = None
        method = self._cuts()
        if method is None or self._narrows is None:
            return None
        with self._work():
            self._looked = self._look(layer, new, method)  # kept for `after_prefill`, which would compute the same again
            return self._narrows.narrow(self._looked[0])

    def after_prefill(self, layer: CompressedLayer, new: Pass) -> None:
        """Store the new entries, or let the method choose what stays of old and new ones together.

        The observer of the stream seam looks first, while entries are still complete; the method chooses next, and packing
        comes last: a storage method must never pack what a choosing method still has to read (`settle` packs that later).
        """
        self.selected = None
        method = self._cuts()
        with self._work():
            if self.observer is not None:
                self.observer(self.layer_ids[layer.number], lambda: self._plain_look(layer, new))
            if method is None:
                layer.append(new.keys, new.values, new.columns)
                self._pack(layer)
            else:
                self._cut(layer, new, method)

    def _cut(self, layer: CompressedLayer, new: Pass, method: CacheMethod) -> None:
        """The method chooses what stays of old and new entries, or ranks them for the late cut."""
        before = new.keys.shape[2] + layer.stored
        if self._queries:
            layer.remember(new.queries, self._queries)
        obs, columns = self._looked or self._look(layer, new, method)
        self._looked = None
        if self._cuts_late:
            self._wait(layer, obs, method)
        parts = None if self._cuts_late else method.reduce(layer, obs, {**columns, "index": obs.index})
        self.selected = None if self._selects is None else self._selects.stream(obs)
        if parts is not None:
            layer.store(parts)
        else:
            layer.parts = [DensePart(obs.keys, obs.values, columns)]
            layer.evicted |= bool(columns.keys() - {"index", "valid"})  # what entries received cannot be taken back
        self.unpacked = self.storage is not None
        if not self._cuts_late:
            went = None if self.selected is None else obs.step.places(self.selected)
            self.trace.add(self.layer_ids[layer.number], method.name, before, layer.stored, went)

    def _wait(self, layer: CompressedLayer, obs: Observation, method: CacheMethod) -> None:
        """`layer` has ranked its entries and waits for those of the other layers. What it may keep goes by the tokens seen:
        a layer that an earlier pass left with little still adds a full share to what all layers share."""
        step, reference = obs.step, None if self._refits is None else self._refits.reference(obs)
        targets = method.targets(layer.number, len(self.layer_ids), step, step.real, self.entry_bytes)
        self.late.wait(layer, method.checked_rank(obs), targets, reference)

    def finish(self, step: Step) -> None:
        """The model has returned from a pass: layers that waited for each other are cut; then the cache is whole."""
        with self.figures.work(step):
            for layer, before in self.late.cut(self._refits):
                assert self.method is not None
                self.trace.add(self.layer_ids[layer.number], self.method.name, before, layer.stored)
        self.unfinished, self.real = False, step.real

    def after_decode(self, layer: CompressedLayer, new: Pass) -> None:
        """One token was appended: methods that evict while decoding drop what is over their budget."""
        method = self._acts()
        if method is None and self.storage is None:
            return
        with self._work():
            if method is not None and self._queries:
                layer.remember(new.queries, self._queries)
                layer.evicted = True  # nor can the queries that are remembered
            if method is not None and method.due(layer):
                fork.unshare(layer)
                layer.evicted = True
                keys, values, columns = layer.restored()
                method.decoded(layer, self._observe(layer, new, method, keys, values, columns, columns))
            self._pack(layer)

    def begin(self, step: Step) -> None:
        """A pass begins, unfinished until the model returns: a call that fails leaves some layers with its tokens and others
        without. What methods left is packed first where the prompt is over, or held, in what may be the copy of a cache."""
        self.step, self.unfinished = step, True
        rollback.begin(self, step)
        if step.hold or not step.prefill:
            self.pack_prompt()

    @contextmanager
    def during(self, step: Step) -> Iterator[None]:
        """While open, the pass is only what `step` says of it."""
        whole, self.step = self.step, step
        try:
            yield
        finally:
            self.step = whole

    def settle(self) -> None:
        """The prompt is complete, and nothing that was generated will be taken back.

        What passes under `torch.inference_mode()` have stored may be written to only there, and this is called anywhere."""
        inference = any(x.is_inference() for layer in self.compressed() for x in layer.buffers())
        with torch.inference_mode() if inference else nullcontext():
            self.pack_prompt()
            for layer in self.compressed():
                layer.commit()

    def pack_prompt(self) -> None:
        """The prompt is complete: what the choosing method left goes to the storage method."""
        if self.unpacked:
            self.unpacked = False
            for layer in self.compressed():
                self._pack(layer)

    def close(self) -> None:
        """The session closes: no pass is running, and no more prompt follows, unless a call failed half way."""
        self.step = self._looked = None
        if not self.unfinished:
            self.settle()

    def _pack(self, layer: CompressedLayer) -> None:
        if self.storage is not None and layer.parts and not layer.parts[-1].frozen and not self.storage.neutral:
            self.storage.pack(layer)

    def _look(self, layer: CompressedLayer, new: Pass, method: CacheMethod) -> tuple[Observation, dict[str, torch.Tensor]]:
        """The observation of a prefill pass, and the columns of all entries, stored and new, as the method leaves them."""
        keys, values, columns = layer.everything(new.keys, new.values, new.columns)
        past = {name: column[..., : keys.shape[2] - new.keys.shape[2]] for name, column in columns.items()}
        obs = self._observe(layer, new, method, keys, values, columns, past)
        return obs, {**columns, **method.columns(obs)}

    def _plain_look(self, layer: CompressedLayer, new: Pass) -> Observation:
        """The observation of a prefill pass for the stream seam, which chooses no entries."""
        keys, values, columns = layer.everything(new.keys, new.values, new.columns)
        return self._observe(layer, new, None, keys, values, columns, {})

    def _observe(
        self,
        layer: CompressedLayer,
        new: Pass,
        method: CacheMethod | None,
        keys: torch.Tensor,
        values: torch.Tensor,
        columns: dict[str, torch.Tensor],
        past: dict[str, torch.Tensor],
    ) -> Observation:
        step = self.step
        assert step is not None
        b, h, n = keys.shape[:3]
        index = columns.get("index")
        if index is None:
            index = torch.arange(n, device=keys.device, dtype=torch.int32).expand(b, h, n)
        valid = columns.get("valid")
        real = [n] * b if valid is None else valid.sum(-1).amax(1).tolist()
        targets = real
        if method is not None:
            targets = method.targets(layer.number, len(self.layer_ids), step, real, self.entry_bytes)
        return Observation(
            layer=layer.number,
            layers=len(self.layer_ids),
            decoder_layer=self.layer_ids[layer.number],
            depth=len(self.layers),
            queries=new.queries,
            keys=keys,
            values=values,
            index=index,
            valid=valid,
            columns=past,
            state=layer.state,
            protected=None if self.protected is None else protected_among(self.protected, index, valid),
            real=real,
            targets=targets,
            scale=new.scale,
            softcap=new.softcap,
            step=step,
            rotary=lambda positions: self._shared_phases(layer.number, positions),
            pseudo=None if new.pseudo is None else new.pseudo[:2],
            pseudo_lse=new.pseudo_lse,
            hidden=self.hidden,
        )

    def phases(self, number: int, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(cos, sin) [B, m, D_rot] of compressed layer `number` at any `positions` [B, m], by the frequencies that the
        running pass has there: those of the decoder's positions, or of the stream's where it goes on at others."""
        if self.rotary is None:
            raise SessionError("this cache was made outside a session; what rotates keys or queries needs one.")
        assert self.step is not None
        return self.rotary(self.layer_ids[number], positions, self.step.position_ids if self.step.moved else None)

    def _shared_phases(self, number: int, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same; full-attention layers of a model share one RoPE, so the two latest results of a pass serve all layers
        at the same positions."""
        assert self.step is not None
        known: list[tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]]
        known, now = self.step.shared.setdefault("asked", []), self.step.position_ids
        for asked, stream, found in known:
            if stream is now and asked.shape == positions.shape and torch.equal(asked, positions):
                return found
        known[:] = [*known[-1:], (positions, now, self.phases(number, positions))]
        return known[-1][2]

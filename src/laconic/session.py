"""`compress(model, *methods)`: a session installs the seams on one model, owns its figures, restores everything on exit."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache

from laconic.cache import attention, saved
from laconic.cache.cache import CompressedCache
from laconic.cache.contract import CacheMethod
from laconic.cache.storage import StorageMethod
from laconic.errors import ConflictError, SessionError
from laconic.families import family_of
from laconic.families.vision import EncoderClock, VisionWatch, deepstack_of, encoder_clock, encoder_depth, vision_family_of
from laconic.measure.cost import Shape
from laconic.measure.session_meter import SessionMeter
from laconic.measure.stats import Stats
from laconic.measure.trace import Trace
from laconic.method import Method, Protect
from laconic.protect import Protection
from laconic.step import step_of
from laconic.stream import pseudo
from laconic.stream.contract import TokenMethod
from laconic.stream.seam import Seam, check_layers


def compress(model: PreTrainedModel, *methods: Method, protect: Protect = (), tokenizer: Any | None = None) -> Session:
    """Compress what `model` remembers, while the returned session is open.

    Args:
        model: a decoder of a supported family, unmodified. Its full-attention layers are compressed; sliding-window and
            linear-attention layers are left alone (`Session.left_alone` names them).
        methods: what to do, e.g. ``SnapKV(keep=0.1)``; methods at different seams compose. None at all stores everything, in
            a cache that neither copies itself per token nor repeats keys.
        protect: what no method may remove, for all methods: token ranges, substrings, ``"system"``.
        tokenizer: needed to protect text.

    Returns:
        a context manager; inside it `generate()`, `pipeline()` and plain calls are compressed.

    Raises:
        ConflictError: two methods claim the same seam.
        UnsupportedModelError: the model does not fit.

    Example:
        >>> with laconic.compress(model, laconic.SnapKV(keep=0.1)) as session:
        ...     model.generate(**inputs)
        >>> session.stats.kv_bytes
    """
    return Session(model, methods, protect, tokenizer)


class Session:
    """One activation of methods on one model. See `compress`.

    Attributes:
        stats: figures so far; `trace`: events; `cache`: the cache of the latest call (pass it as `past_key_values` for
            another turn).
        left_alone: decoder layers that laconic does not compress, layer number -> kind, such as
            ``{0: "sliding_attention"}``. They are bounded already and keep transformers' own cache.
    """

    def __init__(
        self, model: PreTrainedModel, methods: Sequence[Method] = (), protect: Protect = (), tokenizer: Any | None = None
    ):
        for method in methods:
            if not isinstance(method, Method):
                raise TypeError(f"compress() takes methods such as SnapKV(keep=0.1); got {method!r}.")
        self.model, self.methods = model, tuple(methods)
        self.family = family_of(model)
        self.stack = self.family.stack(model)
        self._check_claims()
        self._cache_method = next((m for m in methods if isinstance(m, CacheMethod)), None)
        self._storage_method = next((m for m in methods if isinstance(m, StorageMethod)), None)
        self._check_storage()
        self._budgeted = self._cache_method or self._storage_method
        self._token_methods = [m for m in methods if isinstance(m, TokenMethod)]
        if self._token_methods:
            vision_family_of(model)  # refuses models whose images laconic cannot find
        for method in methods:
            method.attach(model)
        self._protection = Protection([protect, *(m.protect for m in methods)], tokenizer)
        empty = CompressedCache(self.stack.config)  # refuses models without a full-attention layer before any work
        kinds = getattr(self.stack.config, "layer_types", None) or [type(layer).__name__ for layer in empty.layers]
        self.left_alone = {i: kind for i, kind in enumerate(kinds) if i not in empty.layer_ids}
        self.shape = Shape.of(model, self.stack)
        self._seam = self._checked_seam()
        self._watch: VisionWatch | None = None
        self._encoder: EncoderClock | None = None
        self.trace = Trace()
        self.cache: CompressedCache | None = None
        self._hold = False
        self._ids: torch.Tensor | None = None
        self._handles: list[RemovableHandle] = []
        self._implementation: str | None = None
        self._arguments = list(inspect.signature(model.forward).parameters)
        self._clock = 0.0
        self.meter = SessionMeter(self.shape, self._budgeted, self._token_methods)

    def _check_claims(self) -> None:
        owners: dict[str, Method] = {}
        for method in self.methods:
            for claim in method.claims:
                if claim in owners:
                    raise ConflictError(
                        f"{owners[claim].name} and {method.name} both claim the seam {claim!r}; use one of them per session."
                    )
                owners[claim] = method

    def _check_storage(self) -> None:
        chooser, storage = self._cache_method, self._storage_method
        if chooser is None or storage is None or chooser.neutral:
            return
        if chooser.evicts_while_decoding or chooser.ragged:
            ragged = "keeps a different number of entries in every head"
            why = "evicts while decoding" if chooser.evicts_while_decoding else ragged
            raise ConflictError(
                f"{chooser.name} {why}, and {storage.name} packs entries for good, as rectangles; combine {storage.name} "
                "with a method that chooses once after prefill, the same number in every head, such as snapkv."
            )

    def _checked_seam(self) -> Seam:
        method, depth = self._cache_method, len(self.stack.layers)  # type: ignore[arg-type]
        first = None if method is None else method.shortens_from(depth)
        cuts = [layer for m in self._token_methods for layer in m.cuts(depth)]
        wrong = [layer for layer in cuts if not 0 <= layer < depth]
        if wrong:
            raise ValueError(f"a method would cut before layer {wrong[0]}; this model has layers 0..{depth - 1}.")
        kinds = list(getattr(self.stack.config, "layer_types", None) or [])
        for layer in sorted({*cuts, *([] if first is None else [first])}):
            check_layers(kinds, layer, deepstack_of(self.model))
        entry_bytes = self.shape.kv_bytes([1] * depth)
        return Seam(self.stack, self._token_methods, first, self._current, entry_bytes)

    # -- open and close --------------------------------------------------------------------------------------------
    def __enter__(self) -> Session:
        attention.register()
        config = self.stack.config
        if config._attn_implementation == attention.NAME:
            raise SessionError("this model is in a laconic session already; close that one first.")
        self._implementation = config._attn_implementation
        try:
            self.stack.set_attn_implementation(attention.NAME)
            if config._attn_implementation != attention.NAME:
                raise SessionError(f"{type(self.stack).__name__} refuses a registered attention function.")
            if self._token_methods:
                depth = encoder_depth(self.model)
                wanted = {layer for m in self._token_methods for layer in m.encoder_layers(depth)}
                self._watch = VisionWatch(self.model, sorted(wanted))
                self._watch.__enter__()
            self._handles = [handle for m in self._token_methods for handle in m.install(self.model)]
            self._encoder = encoder_clock(self.model)
            self._handles += [] if self._encoder is None else self._encoder.handles
            self._handles += [
                self.model.register_forward_pre_hook(self._before_model, with_kwargs=True),
                self.stack.register_forward_pre_hook(self._before_stack, with_kwargs=True),
                self.stack.register_forward_hook(self._after_stack, with_kwargs=True),
                self.model.register_forward_hook(self._after_model, with_kwargs=True, always_call=True),
            ]
            self._handles += self._seam.install()
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()
        if kind is None:
            self._protection.finish(self.cache)

    def _restore(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._watch is not None:
            self._watch.__exit__(None, None, None)
            self._watch = None
        if self._implementation is not None:
            self.stack.set_attn_implementation(self._implementation)
            self._implementation = None
        if self.cache is not None:
            self.cache.step = None
            if not self.cache.unfinished:
                self.cache.settle()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep every token that comes in meanwhile: a question asked of a compressed context is stored whole."""
        if self.cache is not None:
            self.cache.settle()
        self._hold = True
        try:
            yield
        finally:
            self._hold = False

    # -- around a pass ---------------------------------------------------------------------------------------------
    def _current(self) -> CompressedCache:
        if self.cache is None:
            raise SessionError("nothing has run in this session yet; call the model that was given to compress().")
        return self.cache

    def _before_model(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        kwargs = kwargs | dict(zip(self._arguments, args, strict=False))
        use_cache = kwargs.get("use_cache")
        if use_cache is False or (use_cache is None and self.stack.config.use_cache is False):
            raise SessionError(
                "use_cache=False stores nothing, so there is nothing to compress; drop it or leave the session."
            )
        if kwargs.get("output_attentions") or (
            kwargs.get("output_attentions") is None and self.model.config.output_attentions
        ):
            raise SessionError("output_attentions is not available inside a session; run the model outside of it.")
        if self.cache is not None:
            self.cache.step = None
        self._ids = kwargs.get("input_ids")
        kwargs["use_cache"] = True
        kwargs["past_key_values"] = self.cache = self._adopt(kwargs.get("past_key_values"))
        self._clock = time.perf_counter()
        return (), kwargs

    def _adopt(self, cache: Any) -> CompressedCache:
        """The cache of this pass: a new one for an empty start, or the compressed one of an earlier turn."""
        if isinstance(cache, CompressedCache):
            if len(cache.layers) != len(self.stack.layers):  # type: ignore[arg-type]
                raise SessionError(
                    f"this cache has {len(cache.layers)} layers, the model {len(self.stack.layers)}: "  # type: ignore[arg-type]
                    "it belongs to another model."
                )
            if cache.unfinished:
                raise SessionError(
                    "this cache was left half written when a call failed; start again without past_key_values."
                )
        elif cache is None or (type(cache) is DynamicCache and cache.get_seq_length() == 0 and not cache.offloading):
            cache = CompressedCache(self.stack.config)
            self.trace.clear()
            self.meter = self.meter.fresh()
        else:
            state = f"holds {cache.get_seq_length()} tokens" if isinstance(cache, Cache) else "is no transformers cache"
            if getattr(cache, "offloading", False):
                state = "offloads to the CPU"
            raise SessionError(
                f"past_key_values is a {type(cache).__name__} that {state}; inside a session pass nothing, an empty "
                "DynamicCache, or the cache of an earlier turn of a session."
            )
        cache.method, cache.flops, cache.trace = self._cache_method, self.meter.flops, self.trace
        cache.storage = self._storage_method
        if cache is not self.cache:
            self._handles += self._seam.adopt(cache)
        cache.rotary = lambda layer, positions: self.family.cos_sin(self.stack, layer, positions)
        return cache

    def _before_stack(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        cache = self._current()
        if kwargs.get("past_key_values") is not cache:
            raise SessionError(
                f"{type(module).__name__} was called on its own; inside a session call the model that was given to "
                "compress()."
            )
        ids = kwargs.get("input_ids")
        x = kwargs.get("inputs_embeds") if ids is None else ids
        if x is None:
            raise SessionError("the model was called without input_ids or inputs_embeds.")
        ids = self._ids if ids is None else ids  # models with images embed the prompt themselves
        batch, length = x.shape[:2]
        if length == 0 or batch == 0:
            raise SessionError("the prompt is empty; give at least one token.")
        cache.step = step = step_of(kwargs, batch, length, cache.seen, cache.real, x.device, self._hold)
        if self._protection and step.prefill:
            self._protection.extend(cache, ids, step)
        else:
            self._protection.finish(cache)
        if not step.prefill:
            cache.settle()
        cache.unfinished = True
        kwargs = self._seam.enter(kwargs, step, None if self._watch is None else self._watch.visual, ids)
        method = self._cache_method
        if method is not None and method.pseudo_tokens() and step.prefill and not step.hold and not method.neutral:
            kwargs = pseudo.extended(kwargs, method, step)
        return args, kwargs

    def _after_stack(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        cache = self.cache
        if cache is not None and cache.step is not None and cache.step.pseudo:
            return pseudo.trimmed(output, cache.step.length)
        return output

    def _after_model(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        cache = self.cache
        if cache is None or cache.step is None:
            return
        step, cache.step = cache.step, None
        if output is None:  # the call raised
            return
        cache.unfinished, cache.real = False, step.real
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        meter, logits = self.meter, getattr(output, "logits", None)
        batch, positions = (0, 0) if logits is None else logits.shape[:2]
        meter.ran(step, time.perf_counter() - self._clock, positions, batch)
        meter.compress_seconds += cache.compress_seconds
        cache.compress_seconds = 0.0
        if self._seam.visual is not None:
            meter.shown += self._seam.shown
        if self._encoder is not None:
            meter.encoder_seconds += self._encoder.take()
        if step.prefill:
            meter.check(step, cache)

    # -- figures ---------------------------------------------------------------------------------------------------
    @property
    def stats(self) -> Stats:
        """Figures of the current cache and of all passes since it was new."""
        return self.meter.stats(self.cache)

    def save_cache(
        self,
        path: str | Path,
        *,
        input_ids: torch.Tensor | None = None,
        tokenizer: Any | None = None,
        text: str = "",
        system: str | None = None,
    ) -> None:
        """Write the compressed context to a file that `laconic.load_cache` reads; see `laconic.cache.saved.save`."""
        saved.save(
            self._current(),
            path,
            model=self.model,
            methods=self.methods,
            tokenizer=tokenizer,
            input_ids=input_ids,
            text=text,
            system=system,
        )

    def kept(self, layer: int, head: int = 0, row: int = 0) -> torch.Tensor:
        """Token indices that decoder layer `layer`, KV head `head` stores now for batch row `row`, ascending [m]."""
        cache = self.cache
        if cache is None:
            raise SessionError("nothing has run in this session yet.")
        if layer not in cache.layer_ids:
            raise ValueError(f"layer={layer} is not compressed; compressed layers: {cache.layer_ids}.")
        return cache.layers[layer].kept(row, head)  # type: ignore[union-attr]

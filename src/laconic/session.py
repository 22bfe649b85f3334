"""`compress(model, *methods)`: a session opens the seams of its methods on one model, and restores everything on exit."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn

from laconic import calls, generating
from laconic.cache import attention, saved
from laconic.cache.cache import CompressedCache
from laconic.errors import SessionError
from laconic.families import family_of
from laconic.families.wrappers import called_directly, unwrapped
from laconic.measure.cost import FlopCounter
from laconic.measure.session_meter import SessionMeter
from laconic.measure.stats import Stats
from laconic.measure.trace import Trace
from laconic.method import Method, Protect
from laconic.protect import Protection
from laconic.running import Running
from laconic.seams import Host, Seam, check_claims, seams_of
from laconic.specs import methods_of
from laconic.step import step_of
from laconic.stream.encoder_clock import EncoderSeam
from laconic.stream.offsets import OffsetSeam
from laconic.stream.pseudo import PseudoSeam
from laconic.stream.seam import StreamSeam

ALWAYS: tuple[type[Seam], ...] = (OffsetSeam, StreamSeam, EncoderSeam, PseudoSeam)
"""Seams that are opened whatever the methods are; each says why. All others are named by a method of the session."""


def compress(
    model: nn.Module,
    *methods: Method | str,
    protect: Protect = (),
    tokenizer: Any | None = None,
    count_flops: bool = False,
) -> Session:
    """Compress what `model` remembers, while the returned session is open.

    Args:
        model: a decoder of a supported family, plain or wrapped (PEFT, torch.compile ...). Its full-attention layers are
            compressed; others (sliding windows, linear attention) are left alone, and `Session.left_alone` names them.
        methods: what to do, e.g. ``Random(keep=0.1)`` or ``"random:keep=0.1"``; methods at different seams compose. With
            none, everything is stored, in a cache that neither copies itself per token nor repeats keys.
        protect: what no method may remove: token ranges, substrings, ``"system"``.
        tokenizer: needed to protect text.
        count_flops: count what the methods compute themselves, for `Stats.method_flops`. It slows them down, those most
            that run many small operations, so times are best taken without it.

    Returns:
        a context manager; inside it `generate()`, `pipeline()` and plain calls are compressed.

    Raises:
        ConflictError: two methods claim the same seam.
        UnsupportedModelError: the model does not fit.

    Example:
        >>> with laconic.compress(model, laconic.Random(keep=0.1)) as session:
        ...     model.generate(**inputs)
        >>> session.stats.kv_bytes
    """
    return Session(model, methods, protect, tokenizer, count_flops)


_OPENING = threading.RLock()
"""Of threads that open sessions on one model at once, one does, and the others find that it has; closing is undoing in
order, which another session must not begin in the middle of."""


class Session:
    """One activation of methods on one model. See `compress`.

    Attributes:
        cache: that of the latest call (pass it as `past_key_values` for another turn); where several threads call the model
            at once, of this thread's latest. `stats`, `trace` and `kept` speak of it; `stats_of` has the figures of any.
        left_alone: decoder layers that laconic does not compress, layer number -> kind, such as
            ``{0: "sliding_attention"}``. They are bounded already and keep transformers' own cache.
    """

    def __init__(
        self,
        model: nn.Module,
        methods: Sequence[Method | str] = (),
        protect: Protect = (),
        tokenizer: Any = None,
        count_flops: bool = False,
    ):
        self._counts = count_flops
        self._given, self.model, self.methods = model, unwrapped(model), methods_of(methods)
        self.family = family_of(self.model)
        self.stack = self.family.stack(self.model)
        check_claims(self.methods)
        self._running = Running()
        host = Host(self.model, self.stack, self.family, self.methods, tokenizer, self._running)
        self._seams = seams_of(host, ALWAYS)
        # conflicts first, which need no model; then the methods load what is theirs; then the seams read what they ask for
        for seam in self._seams:
            seam.check()
        for method in self.methods:
            method.attach(self.model)
        self._protection = Protection([protect, *(m.protect for m in self.methods)], tokenizer)
        self.left_alone = CompressedCache(self.stack.config).left_alone  # refuses models without a full-attention layer
        self.shape = self._running_shape = host.shape
        for seam in self._seams:
            seam.prepare()
        self._restore = ExitStack()
        budgeted = next((seam.budgeted for seam in self._seams if seam.budgeted is not None), None)
        self.meter = SessionMeter(self.shape, budgeted, any(seam.stores_less for seam in self._seams))

    # -- open and close --------------------------------------------------------------------------------------------
    def __enter__(self) -> Session:
        """Open everything. The attention function comes first, because it refuses a model that is in a session already; the
        session's own hooks come last, so that they run after those of the seams on the same module (see `Seam`).

        Raises:
            SessionError: the model is in a session already, be it one that another thread has just opened.
        """
        with _OPENING:
            if self.stack.config._attn_implementation == attention.NAME:
                raise SessionError("this model is in a laconic session already; close that one first.")
            try:
                self._restore.callback(self._running.close)  # last of all
                self._restore.enter_context(called_directly(self._given))
                self._restore.enter_context(attention.switched(self.stack))
                self._restore.enter_context(generating.noted(self.model))
                for seam in self._seams:
                    seam.install(self._restore)
                self._running_shape = next((seam.shape for seam in self._seams if seam.shape), self.shape)
                for handle in (
                    self.model.register_forward_pre_hook(self._before_model, with_kwargs=True),
                    self.stack.register_forward_pre_hook(self._before_stack, with_kwargs=True),
                    self.stack.register_forward_hook(self._after_stack, with_kwargs=True),
                    self.model.register_forward_hook(self._after_model, with_kwargs=True, always_call=True),
                ):
                    self._restore.callback(handle.remove)
            except BaseException:
                self._restore.close()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with _OPENING:
            self._restore.close()
        if kind is None:
            self._protection.finish(self.cache)

    def hold(self) -> AbstractContextManager[None]:
        """Keep every token that comes in meanwhile: a question asked of a compressed context is stored whole.

        Like `torch.no_grad()` it is for the calls of the thread, or asynchronous task, that enters it (`asyncio.to_thread`
        takes it along), and for those of any thread on `cache` as it is now. Holds nest.
        """
        return self._running.hold()

    # -- around a pass ---------------------------------------------------------------------------------------------
    def _before_model(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The model is called: choose the cache. The pass is not known yet: a model may still have to embed images."""
        kwargs = calls.by_name(module, args, kwargs)
        calls.check_arguments(kwargs, self.model, self.stack)
        cache = calls.cache_of(kwargs.get("past_key_values"), self.stack)
        generated = generating.generated_in(kwargs, cache.seen, cache.records_past)
        with self._running.begin(cache, kwargs.get("input_ids"), generated):
            self._adopt(cache)
        return (), kwargs | {"use_cache": True, "past_key_values": cache}

    def _adopt(self, cache: CompressedCache) -> None:
        """Bind the cache of this pass, a new one or that of an earlier turn, to this session and its methods."""
        cache.figures.flops = cache.figures.flops or FlopCounter(self._running_shape)
        cache.figures.counting &= self._counts or not self.methods  # without methods there is nothing to count
        # in every pass: another session may have used the cache in between, with other methods
        cache.method = cache.storage = None
        cache.rotary = partial(self.family.cos_sin, self.stack)
        for seam in self._seams:
            seam.adopt(cache)

    def _before_stack(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The decoder is called: describe the pass as a step, then let the seams change its arguments.

        Protection is resolved before the seams cut or the layers choose. It is complete as soon as a pass decodes, since
        only then the prompt is known to be over.
        """
        kwargs = calls.by_name(module, args, kwargs)
        call = calls.check_decoder(kwargs, module, self._running.call)
        cache, x = call.cache, calls.input_of(kwargs)
        ids = call.ids if kwargs.get("input_ids") is None else x  # models with images embed the prompt themselves
        step = step_of(kwargs, x, cache.seen, cache.real, self._running.holds(cache), call.generated)
        self._protection.enter(cache, ids, step)
        cache.begin(step)
        for seam in self._seams:
            kwargs = seam.enter(kwargs, step, ids)
        return (), kwargs

    def _after_stack(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        """The decoder has run: the seams undo on its output what they did to its input, the last one first."""
        call = self._running.call
        if call is not None and call.cache.step is not None:
            for seam in reversed(self._seams):
                output = seam.leave(output, call.cache.step)
        return output

    def _after_model(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """The model has returned, or raised: then the step is dropped and the cache remains unfinished."""
        call = self._running.end()
        if call is None or call.cache.step is None:
            return
        cache, step = call.cache, call.cache.step
        cache.step = None
        if output is None:  # the call raised
            return
        cache.finish(step)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        cache.figures.ran(step, time.perf_counter() - call.began, getattr(output, "logits", None))
        for seam in self._seams:
            seam.finish(step, cache)
        if step.prefill and not step.generated:
            self.meter.check(step, cache)  # last: a warning may become an error, and the figures are complete by then

    # -- caches and their figures ----------------------------------------------------------------------------------
    @property
    def cache(self) -> CompressedCache | None:
        """The cache of the latest call; None before any."""
        return self._running.latest

    @cache.setter
    def cache(self, cache: CompressedCache | None) -> None:
        self._running.latest = cache

    def take(self, cache: CompressedCache) -> None:
        """Make a cache that begins with entries from elsewhere the latest one, as if this session had read them."""
        self._adopt(cache)
        self.cache = cache

    @property
    def stats(self) -> Stats:
        """Figures of `cache`, and of all passes since it was new; zeros before any call."""
        return self.meter.stats(None) if self.cache is None else self.stats_of(self.cache)

    def stats_of(self, cache: CompressedCache) -> Stats:
        """Figures of any cache of this session: that of one of several conversations, say."""
        stats = self.meter.stats(cache)
        for seam in self._seams:
            seam.stats(stats, cache, self.meter)
        return stats

    @property
    def trace(self) -> Trace:
        """What happened to the layers of `cache` since it was new."""
        return Trace() if self.cache is None else self.cache.trace

    def save_cache(self, path: str | Path, **context: Any) -> None:
        """Write the compressed context to a file that `laconic.load_cache` reads.

        Args:
            context: what the file is to say: input_ids=, tokenizer=, text=, system=, images=; see `cache.saved.save`.
        """
        saved.save(self._running.last(), path, model=self.model, methods=self.methods, **context)

    def kept(self, layer: int, head: int = 0, row: int = 0) -> torch.Tensor:
        """Token indices that decoder layer `layer`, KV head `head` stores now for batch row `row`, ascending [m]."""
        return self._running.last().kept(layer, head, row)

"""Answers one prompt, compressed or stock, and measures both with the same clock. Shared by `run` and `inspect`."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.generation.streamers import BaseStreamer

from laconic.cache.cache import CompressedCache
from laconic.cache.saved import SavedContext
from laconic.cli.memory import PeakMemory
from laconic.cli.options import Request
from laconic.cli.pass_timer import PassTimer
from laconic.cli.seen import Seen
from laconic.errors import LaconicError
from laconic.families.vision import encoder_clock
from laconic.measure.cost import Shape
from laconic.measure.stats import Stats
from laconic.method import Method
from laconic.prompts.text import Prompt
from laconic.session import Session

WARM_UP_TOKENS = 128
ALONG = ("mm_token_type_ids", "token_type_ids")
"""Inputs with a value for every token."""


@dataclass
class Result:
    """One answer and its figures. Bytes after the prompt are what the context costs; those at the end include the answer.

    Attributes:
        ids: new tokens; `text`: without special tokens; `finish`: "eos" or "length".
        decoded: passes over one token, which `decode_seconds` is the time of.
        encoder_seconds: inside the vision encoder; not part of `prefill_seconds`.
        entries: entries per compressed layer when the prompt had been read: (fewest, mean, most) over the heads.
        peak_memory: bytes; `memory_kind` says of what.
    """

    ids: list[int] = field(default_factory=list)
    text: str = ""
    finish: str = "length"
    encoder_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    compress_seconds: float = 0.0
    decoded: int = 0
    prefill_flops: int = 0
    decode_flops: int = 0
    kv_bytes_prompt: int = 0
    kv_bytes_end: int = 0
    entries: list[tuple[int, float, int]] = field(default_factory=list)
    peak_memory: int = 0
    memory_kind: str = ""


@dataclass
class Run:
    """A compressed run: the result, the session's figures when the budget had been spent, and at the end; `seen`: its
    visual tokens, in runs with images."""

    result: Result
    budget: Stats
    final: Stats
    session: Session
    seen: Seen | None = None


def compressed(
    model: PreTrainedModel,
    tokenizer: Any,
    prompt: Prompt,
    methods: Sequence[Method],
    request: Request,
    *,
    streamer: BaseStreamer | None = None,
    ready: Callable[[Session], None] = lambda session: None,
    saved: SavedContext | None = None,
) -> Run:
    """Answer inside a session.

    Args:
        saved: the prompt's context, compressed earlier; only the question is read.
        ready: called when the whole prompt is in the cache, before the first token is decoded.
    """
    session = Session(model, methods, request.protected(), tokenizer)
    warm_up(model, prompt, methods)
    result, figures = Result(), []
    seen = Seen(model) if prompt.inputs else None

    def prompt_read(cache: Any) -> None:
        lengths = [layer.lengths[0] for layer in cache.compressed()]
        result.entries = [(int(x.min()), float(x.float().mean()), int(x.max())) for x in lengths]
        result.kv_bytes_prompt = cache.nbytes
        ready(session)
        figures.append(session.stats)

    with _memory(model, result), _collected(request), session, seen or contextlib.nullcontext():
        watch = PassTimer(model, prompt.tokens, prompt_read)
        try:
            cache: CompressedCache | None = None
            hold: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
            if saved is not None:
                session.cache = cache = saved.cache()
            elif request.query_agnostic:
                cache = read(model, session, prompt.context, request.prefill_chunk_size, prompt.inputs)
            if cache is not None:
                figures.append(session.stats)
                hold = session.hold()
            with hold:
                _generate(model, tokenizer, prompt, request, result, streamer, cache)
            watch.finish(session.cache)
        finally:
            watch.remove()
    final = session.stats
    result.encoder_seconds = final.encoder_seconds
    result.prefill_seconds, result.decode_seconds = final.prefill_seconds, final.decode_seconds
    if request.query_agnostic:  # generate() encodes images before it calls the model, a plain call inside of it
        result.prefill_seconds -= final.encoder_seconds
    result.compress_seconds, result.decoded = final.compress_seconds, final.tokens_out
    result.prefill_flops, result.decode_flops = final.prefill_flops, final.decode_flops
    result.kv_bytes_end = final.kv_bytes
    return Run(result, figures[0], final, session, seen)


def stock(model: PreTrainedModel, tokenizer: Any, prompt: Prompt, request: Request, session: Session) -> Result:
    """Answer with the uncompressed model: transformers' own cache. Bytes and FLOPs (by formula) are of the layers that
    `session` compressed, like its own."""
    result, shape = Result(), compressed_shape(session)
    layers = session.stats.layers

    def prompt_read(cache: Any) -> None:
        result.kv_bytes_prompt = cache_bytes(cache, layers)

    clock = encoder_clock(model) if prompt.inputs else None
    with _memory(model, result):
        watch = PassTimer(model, prompt.tokens, prompt_read)
        try:
            cache = _generate(model, tokenizer, prompt, request, result, None, None)
            watch.finish(cache)
        finally:
            watch.remove()
            for handle in () if clock is None else clock.handles:
                handle.remove()
    result.encoder_seconds = 0.0 if clock is None else clock.take()
    result.prefill_seconds, result.decode_seconds = watch.prefill_seconds, watch.decode_seconds
    result.decoded = watch.decoded
    result.kv_bytes_end = cache_bytes(cache, layers)
    result.prefill_flops = shape.prefill_flops([prompt.tokens] * shape.layers)
    result.decode_flops = sum(shape.decode_flops([prompt.tokens + i + 1] * shape.layers) for i in range(watch.decoded))
    return result


def compressed_shape(session: Session) -> Shape:
    """The sizes of the layers that the session compresses; it counts FLOPs of no others."""
    shape = session.shape
    return replace(shape, weights=tuple(shape.weights[i] for i in session.stats.layers))


def cache_bytes(cache: Cache, layers: Sequence[int]) -> int:
    """Bytes of keys and values in the given layers of a transformers cache."""
    tensors = [getattr(cache.layers[i], name, None) for i in layers for name in ("keys", "values")]
    return sum(t.nbytes for t in tensors if isinstance(t, torch.Tensor))


def warm_up(model: PreTrainedModel, prompt: Prompt, methods: Sequence[Method] = ()) -> None:
    """A few tokens through the stock model and through a session, so that first-call costs are charged to nobody."""
    text = prompt.question * WARM_UP_TOKENS if prompt.inputs else prompt.ids  # no placeholders of images
    ids = torch.tensor([text[: min(WARM_UP_TOKENS, prompt.tokens)]], device=model.device)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if prompt.inputs:
            encode(model, prompt)
        for wanted in (None, methods):
            # a budget may be too small for these few tokens; the real run says so where it matters
            with contextlib.suppress(LaconicError), contextlib.nullcontext() if wanted is None else Session(model, wanted):
                cache = model(ids, use_cache=True, logits_to_keep=1).past_key_values
                model(ids[:, -1:], past_key_values=cache, use_cache=True)


def encode(model: PreTrainedModel, prompt: Prompt) -> None:
    """The prompt's images through the vision encoder and its projector, for nothing."""
    features: Any = model.get_image_features
    wanted = inspect.signature(features).parameters
    features(**{name: value for name, value in on_device(model, prompt.inputs).items() if name in wanted})


def on_device(model: PreTrainedModel, inputs: dict[str, Any], tokens: int | None = None) -> dict[str, Any]:
    """What goes into the model beside the ids: pixels in its dtype, and what runs along the ids for the first `tokens`."""
    moved = {}
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor):
            value = value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)
        moved[name] = value[:, :tokens] if name in ALONG else value
    return moved


def read(
    model: PreTrainedModel, session: Session, ids: list[int], chunk: int | None, inputs: dict[str, Any] | None = None
) -> CompressedCache:
    """The context alone, into the session's cache; `inputs`: its images, which are not read in pieces."""
    given = on_device(model, inputs or {}, len(ids))
    with torch.no_grad():
        for start in range(0, len(ids), chunk or len(ids)):
            piece = torch.tensor([ids[start : start + (chunk or len(ids))]], device=model.device)
            model(piece, past_key_values=session.cache if start else None, use_cache=True, logits_to_keep=1, **given)
    assert session.cache is not None
    return session.cache


def _generate(
    model: PreTrainedModel,
    tokenizer: Any,
    prompt: Prompt,
    request: Request,
    result: Result,
    streamer: BaseStreamer | None,
    cache: Cache | None,
) -> Cache:
    """Run `generate()` and fill in the answer; returns the cache."""
    torch.manual_seed(request.seed)
    ids = torch.tensor([prompt.ids], device=model.device)
    options: dict[str, Any] = {"do_sample": request.sample, "max_new_tokens": request.max_new_tokens, "use_cache": True}
    if request.sample:
        options |= {"temperature": 1.0 if request.temperature is None else request.temperature}
    if request.prefill_chunk_size and cache is None:
        options["prefill_chunk_size"] = request.prefill_chunk_size
    if cache is not None:
        options["past_key_values"] = cache
    else:
        options |= on_device(model, prompt.inputs)
    if tokenizer.pad_token_id is not None:
        options["pad_token_id"] = tokenizer.pad_token_id
    out = model.generate(  # type: ignore[operator]
        ids, attention_mask=torch.ones_like(ids), streamer=streamer, return_dict_in_generate=True, **options
    )
    result.ids = out.sequences[0, prompt.tokens :].tolist()
    result.text = tokenizer.decode(result.ids, skip_special_tokens=True)
    eos = model.generation_config.eos_token_id  # type: ignore[union-attr]
    stops = {eos} if isinstance(eos, int) else set(eos or ())
    result.finish = "eos" if result.ids and result.ids[-1] in stops else "length"
    return out.past_key_values


@contextmanager
def _memory(model: PreTrainedModel, result: Result) -> Iterator[None]:
    with PeakMemory(model.device) as memory:
        yield
    result.peak_memory, result.memory_kind = memory.peak, memory.kind


@contextmanager
def _collected(request: Request) -> Iterator[None]:
    """Warnings of a run go where the user reads them: into the panel and the JSON."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    request.warnings += list(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning)))

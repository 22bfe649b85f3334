"""Forks: caches that share what one context stores and grow apart, so that it is read once and asked many questions.

Nothing is copied. The parts of a cache that has been forked are frozen: whatever comes later goes into parts after them, and
a method that has to change what they hold works on a copy of its own. Attention over several parts merges exactly.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor
from transformers.cache_utils import Cache

from laconic.cache.late import LateCut
from laconic.cache.layer import CompressedLayer
from laconic.cache.parts.base import DensePart, memory_of
from laconic.cache.rollback import Drafts
from laconic.errors import SessionError
from laconic.measure.trace import Trace

if TYPE_CHECKING:
    from laconic.cache.cache import CompressedCache

AnyCache = TypeVar("AnyCache", bound=Cache)

_FREEZING = threading.Lock()
"""Threads that fork one cache at once must find it settled and frozen."""


def forked(cache: CompressedCache) -> CompressedCache:
    """See `CompressedCache.fork`."""
    if cache.step is not None or cache.unfinished:
        raise SessionError("this cache is in the middle of a pass, or was left half written by one; it cannot be forked.")
    with _FREEZING:
        cache.settle()
        for layer in cache.compressed():
            for part in layer.parts:
                part.frozen = True
    fork = _twin(cache)
    fork.start = _twin(cache)
    return fork


def rewound(cache: CompressedCache) -> None:
    """See `CompressedCache.rewind`."""
    start = cache.start
    if start is None:
        raise SessionError("rewind() goes back to where a cache was forked, and this one never was; ask a fork() of it.")
    vars(cache).update(vars(_twin(start, cache)))
    cache.start = start


def unshare(layer: CompressedLayer) -> None:
    """Put one part of its own in place of dense ones that forks share: a method is about to change what is stored."""
    first = layer.parts[0]
    if first.frozen and isinstance(first, DensePart) and all(isinstance(part, DensePart) for part in layer.parts):
        layer.parts = [first.of(DensePart(*layer.restored()), layer)]


def stock_fork(cache: AnyCache) -> AnyCache:
    """A cache of transformers' own that starts with what `cache` holds and leaves it as it is. Keys and values are shared
    until the first update, which replaces them; states that are overwritten in place are copied."""
    fork = copy.copy(cache)
    fork.layers = [_stock_twin(layer) for layer in cache.layers]
    return fork


def held(caches: Iterable[CompressedCache]) -> int:
    """Bytes that several caches hold in memory together (see `CompressedCache.allocated`); what they share counts once."""
    return memory_of(tensor for cache in caches for tensor in _tensors(cache))


def _tensors(cache: CompressedCache) -> Iterator[Tensor]:
    for layer in cache.compressed():
        yield from layer.buffers()
    yield from cache.late.ranks
    yield from (x for x in (cache.protected, cache.ids, cache.ids_valid) if x is not None)
    if cache.start is not None:
        yield from _tensors(cache.start)


def _twin(cache: CompressedCache, into: CompressedCache | None = None) -> CompressedCache:
    """A cache, or `into`, with layers of its own that hold the same (frozen) parts."""
    twin = copy.copy(cache)
    twin.start = None  # a fork of a fork goes back to where it was forked itself, and keeps nothing from before that alive
    owner = twin if into is None else into
    twin.layers = [_layer_twin(x, owner) if isinstance(x, CompressedLayer) else _stock_twin(x) for x in cache.layers]
    twin.real, twin.late = list(cache.real), LateCut(nbytes=cache.late.nbytes)
    twin.figures, twin.trace = copy.deepcopy(cache.figures), Trace(list(cache.trace.events))
    return twin


def _layer_twin(layer: CompressedLayer, owner: CompressedCache) -> CompressedLayer:
    twin = copy.copy(layer)
    twin.cache = owner
    twin.state = {name: x.clone() for name, x in layer.state.items()}  # methods write to it
    twin.parts = [copy.copy(part) for part in layer.parts]  # the objects, not their tensors: a batch change replaces those
    twin.drafts = Drafts()
    for part in twin.parts:
        part.link(twin)
    return twin


def _stock_twin(layer: Any) -> Any:
    twin = copy.copy(layer)
    for name, value in vars(layer).items():
        if isinstance(value, dict):  # convolution and recurrent states, by number
            setattr(twin, name, {i: x.clone() if isinstance(x, Tensor) else x for i, x in value.items()})
    return twin

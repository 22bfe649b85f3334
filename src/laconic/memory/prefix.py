"""A prefix: keys and values that stand for a context in the cache of every layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from laconic.cache.cache import CompressedCache
from laconic.cache.parts.base import DensePart
from laconic.errors import UnsupportedModelError
from laconic.families import family_of


@dataclass(frozen=True)
class Prefix:
    """What stands for a context, the opening of its prompt included, as every layer's attention sees it.

    Attributes:
        keys, values: of every decoder layer, [B, Hkv, e, D]; keys are rotated to the positions that their method chose.
        seen: the position of the token that follows; that many tokens count as seen.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    seen: int

    @classmethod
    def of(cls, cache: DynamicCache, start: int = 0, stop: int | None = None, seen: int | None = None) -> Prefix:
        """The entries `start` to `stop` of a cache of transformers' own; `seen`: None means all that it holds."""
        layers: Any = cache.layers
        keys = tuple(layer.keys[:, :, start:stop] for layer in layers)
        values = tuple(layer.values[:, :, start:stop] for layer in layers)
        return cls(keys, values, cache.get_seq_length() if seen is None else seen)

    @property
    def entries(self) -> int:
        """How many each KV head has."""
        return self.keys[0].shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(x.nbytes for x in (*self.keys, *self.values))

    def map(self, f: Callable[[Tensor], Tensor]) -> Prefix:
        """The same with `f` of every tensor."""
        return Prefix(tuple(map(f, self.keys)), tuple(map(f, self.values)), self.seen)

    def followed_by(self, other: Prefix) -> Prefix:
        """These entries, then those of `other`, whose `seen` holds."""
        keys = tuple(torch.cat(pair, 2) for pair in zip(self.keys, other.keys, strict=True))
        values = tuple(torch.cat(pair, 2) for pair in zip(self.values, other.values, strict=True))
        return Prefix(keys, values, other.seen)

    def cache(self, dtype: torch.dtype) -> DynamicCache:
        """A cache of transformers' own that begins with these entries, for plain calls, through which gradients reach them.
        What follows has to be called with its `position_ids`: see `after`."""
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(zip(self.keys, self.values, strict=True)):
            cache.update(keys.to(dtype), values.to(dtype), layer)
        return cache

    def after(self, tokens: int) -> Tensor:
        """Positions of `tokens` tokens that follow, [1, tokens]."""
        return torch.arange(self.seen, self.seen + tokens, device=self.keys[0].device)[None]

    def compressed(self, model: PreTrainedModel) -> CompressedCache:
        """A cache for sessions that begins with these entries. No method may remove them; one that packs packs them, too."""
        cache = CompressedCache(model.config.get_text_config(decoder=True))
        rows = len(self.keys[0])
        for layer, keys, values in zip(cache.compressed(), self.keys, self.values, strict=True):
            keys, values = (x.to(model.device, model.dtype) for x in (keys, values))
            layer.lazy_initialization(keys, values)
            index = torch.arange(self.entries, dtype=torch.int32, device=model.device).expand(keys.shape[:3])
            layer.parts, layer.seen = [DensePart(keys, values, {"index": index})], self.seen
            layer.evicted = True  # what these entries were read from cannot be taken back
            cache.bytes_per_entry(keys, values)
        cache.real, cache.unpacked = [self.seen] * rows, True
        cache.protected = torch.ones(rows, self.seen, dtype=torch.bool, device=model.device)
        return cache


def check_holds_prefixes(model: PreTrainedModel, method: str) -> None:
    """Refuse a model whose layers do not all keep what they are given.

    Raises:
        UnsupportedModelError: a layer with a sliding window or a state of its own.
    """
    config: Any = family_of(model).stack(model).config
    other = sorted({type(layer).__name__ for layer in DynamicCache(config=config).layers if type(layer) is not DynamicLayer})
    if other:
        raise UnsupportedModelError(
            f"{method} puts keys and values into every layer, and this model has layers that do not keep them "
            f"({', '.join(other)}); use a model of full attention, or a method that makes soft tokens."
        )


def read(model: PreTrainedModel, ids: Tensor, before: Prefix | None = None) -> Prefix:
    """What the model itself keeps of token ids [B, n], or of embeddings [B, n, d], after the entries `before`."""
    rows = len(ids)
    past = DynamicCache() if before is None else before.cache(model.dtype)
    at = torch.arange(ids.shape[1], device=ids.device)[None] if before is None else before.after(ids.shape[1])
    stack: Any = family_of(model).stack(model)
    if ids.shape[1]:
        given = {"inputs_embeds" if ids.is_floating_point() else "input_ids": ids}
        stack(**given, past_key_values=past, position_ids=at.expand(rows, -1), use_cache=True)
    if not past.layers:
        raise ValueError("there is nothing to read: no tokens, and nothing before them.")
    return Prefix.of(past, seen=ids.shape[1] + (0 if before is None else before.seen))

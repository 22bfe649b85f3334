"""The uncompressed model, with the same calls and figures as a session."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache

from laconic.cache.cache import CompressedCache
from laconic.calls import by_name, input_of
from laconic.families import family_of
from laconic.families.vision import EncoderClock, encoder_clock
from laconic.generating import generated_in, noted
from laconic.measure.cost import Shape
from laconic.measure.stats import Stats


@dataclass
class _Spent:
    """What one cache has cost: prompt tokens that were read, seconds, and FLOPs of one sequence's decoding."""

    prompt: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    decode_flops: int = 0


class StockSession:
    """Runs a model with transformers' own cache, and times its passes as a session does. A call without `past_key_values`
    begins a new cache; figures belong to the cache, as in a session.

    Bytes are those of the cache; FLOPs come from formulas, as if the tokens seen so far were one prompt. Like a
    session's figures, they cover the layers that laconic can compress.
    """

    def __init__(self, model: PreTrainedModel):
        self.model, stack = model, family_of(model).stack(model)
        self._layers = list(CompressedCache(stack.config).layer_ids)
        shape = Shape.of(model, stack)
        self._shape = replace(shape, weights=tuple(shape.weights[i] for i in self._layers))
        self._spent: WeakKeyDictionary[Cache, _Spent] = WeakKeyDictionary()
        self._generated, self._length, self._began = 0, 0, 0.0
        self.cache: Cache = DynamicCache(config=model.config)
        self._encoder: EncoderClock | None = None
        self._restore = ExitStack()

    def __enter__(self) -> StockSession:
        self._encoder = encoder_clock(self.model)
        self._restore.enter_context(noted(self.model))
        for handle in (
            *([] if self._encoder is None else self._encoder.handles),
            self.model.register_forward_pre_hook(self._before, with_kwargs=True),
            self.model.register_forward_hook(self._after),
        ):
            self._restore.callback(handle.remove)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore.close()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Nothing is ever removed here."""
        yield

    def _before(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        kwargs = by_name(module, args, kwargs)
        given = kwargs.get("past_key_values")
        self.cache = kwargs["past_key_values"] = DynamicCache(config=self.model.config) if given is None else given
        start = self.cache.get_seq_length()
        self._spent.setdefault(self.cache, _Spent(prompt=start))
        self._generated, self._length = generated_in(kwargs, start), input_of(kwargs).shape[1]
        self._began = time.perf_counter()
        return (), kwargs

    def _after(self, module: Any, args: Any, output: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds, spent = time.perf_counter() - self._began, self._spent[self.cache]
        spent.prompt += self._length - self._generated
        if self._generated < self._length:
            spent.prefill_seconds += seconds
        else:
            spent.decode_seconds += seconds
        seen = self.cache.get_seq_length()
        for entries in range(seen - self._generated + 1, seen + 1):
            spent.decode_flops += self._shape.decode_flops([entries] * self._shape.layers)

    @property
    def stats(self) -> Stats:
        """Figures of the latest call's cache, and of all its passes in this session; bytes and FLOPs are of the whole
        batch."""
        seen, layers, spent = self.cache.get_seq_length(), self._shape.layers, self._spent.get(self.cache, _Spent())
        stored = [self.cache.layers[i] for i in self._layers] if seen else []
        tensors = [x for layer in stored for x in (layer.keys, layer.values) if x is not None]  # type: ignore[union-attr]
        size, batch = sum(x.nbytes for x in tensors), tensors[0].shape[0] if tensors else 0
        flops = batch * self._shape.prefill_flops([spent.prompt] * layers)
        return Stats(
            tokens_in=spent.prompt,
            tokens_out=seen - spent.prompt,  # drafts that were rejected have left the cache
            entries=[float(seen)] * layers,
            layers=list(self._layers),
            kv_bytes=size,
            kv_bytes_full=size,
            kv_bytes_allocated=size,
            encoder_seconds=0.0 if self._encoder is None else self._encoder.seconds,
            prefill_seconds=spent.prefill_seconds,
            decode_seconds=spent.decode_seconds,
            prefill_flops=flops,
            prefill_flops_full=flops,
            decode_flops=batch * spent.decode_flops,
        )

"""The uncompressed model, with the same calls and figures as a session."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from laconic.cache.cache import CompressedCache
from laconic.families import family_of
from laconic.families.vision import EncoderClock, encoder_clock
from laconic.measure.cost import Shape
from laconic.measure.stats import Stats


class StockSession:
    """Runs a model with transformers' own cache, and times its passes as a session does. A call without `past_key_values`
    begins a new cache, and with it new figures.

    Bytes are those of the cache; FLOPs come from formulas, as if the tokens seen so far were one prompt. Like a
    session's figures, they cover the layers that laconic can compress.
    """

    def __init__(self, model: PreTrainedModel):
        self.model, stack = model, family_of(model).stack(model)
        self._layers = list(CompressedCache(stack.config).layer_ids)
        shape = Shape.of(model, stack)
        self._shape = replace(shape, weights=tuple(shape.weights[i] for i in self._layers))
        self._prefill, self._began = True, 0.0
        self._begin()
        self._encoder: EncoderClock | None = None
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> StockSession:
        self._encoder = encoder_clock(self.model)
        self._handles = [] if self._encoder is None else list(self._encoder.handles)
        self._handles += [
            self.model.register_forward_pre_hook(self._before, with_kwargs=True),
            self.model.register_forward_hook(self._after),
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Nothing is ever removed here."""
        yield

    def _begin(self) -> None:
        self.cache = DynamicCache(config=self.model.config)
        self._prefill_seconds = self._decode_seconds = 0.0
        self._decode_flops = self._decoded = 0

    def _before(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if kwargs.get("past_key_values") is None:
            self._begin()
            kwargs["past_key_values"] = self.cache
        ids = args[0] if args else kwargs["input_ids"]
        self._prefill = ids.shape[1] > 1 or self.cache.get_seq_length() == 0
        self._began = time.perf_counter()
        return args, kwargs

    def _after(self, module: Any, args: Any, output: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._began
        if self._prefill:
            self._prefill_seconds += seconds
        else:
            self._decode_seconds += seconds
            self._decoded += 1
            self._decode_flops += self._shape.decode_flops([self.cache.get_seq_length()] * self._shape.layers)

    @property
    def stats(self) -> Stats:
        """Figures of the cache and of all passes so far; bytes and FLOPs are of the whole batch."""
        seen, layers = self.cache.get_seq_length(), self._shape.layers
        stored = [self.cache.layers[i] for i in self._layers] if seen else []
        tensors = [x for layer in stored for x in (layer.keys, layer.values) if x is not None]  # type: ignore[union-attr]
        size, batch = sum(x.nbytes for x in tensors), tensors[0].shape[0] if tensors else 0
        flops = batch * self._shape.prefill_flops([seen - self._decoded] * layers)
        return Stats(
            tokens_in=seen - self._decoded,
            tokens_out=self._decoded,
            entries=[float(seen)] * layers,
            layers=list(self._layers),
            kv_bytes=size,
            kv_bytes_full=size,
            kv_bytes_allocated=size,
            encoder_seconds=0.0 if self._encoder is None else self._encoder.seconds,
            prefill_seconds=self._prefill_seconds,
            decode_seconds=self._decode_seconds,
            prefill_flops=flops,
            prefill_flops_full=flops,
            decode_flops=batch * self._decode_flops,
        )

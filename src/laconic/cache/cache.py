"""`CompressedCache`: the cache that a session injects. transformers sees a `Cache`; methods see layers made of parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from transformers import PretrainedConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from laconic.cache.base import CacheMethod
from laconic.cache.layer import CompressedLayer
from laconic.cache.observe import Observation, Rotary
from laconic.cache.parts import DensePart
from laconic.cost import Meter
from laconic.errors import SessionError, UnsupportedModelError
from laconic.step import Step
from laconic.trace import Trace


class CompressedCache(Cache):
    """One compressed layer for every full-attention layer of the model; others keep transformers' own kind.

    Args:
        config: the text configuration; it says which layers are full attention.
        method: who shortens the layers; None stores everything.
        rotary: (layer index, positions [B, m]) -> (cos, sin), for methods that undo RoPE.
        trace: events are written here.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        method: CacheMethod | None = None,
        rotary: Callable[[int, torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None,
        trace: Trace | None = None,
    ):
        layers: list[object] = list(DynamicCache(config=config).layers)
        self.layer_ids = [i for i, layer in enumerate(layers) if type(layer) is DynamicLayer]
        if not self.layer_ids:
            kinds = sorted({type(layer).__name__ for layer in layers})
            raise UnsupportedModelError(
                f"{type(config).__name__} has no full-attention layer to compress (cache layers: {', '.join(kinds)}). "
                "Sliding-window and linear-attention layers are bounded already and are left alone."
            )
        for number, i in enumerate(self.layer_ids):
            layers[i] = CompressedLayer(self, number)
        super().__init__(layers=layers)  # type: ignore[arg-type]
        self.method, self.rotary = method, rotary
        self.trace = trace if trace is not None else Trace()
        self.step: Step | None = None
        self.unfinished = False  # a pass began and did not come to its end: some layers may know its tokens, others not
        self.protected: torch.Tensor | None = None
        self.protection_checked = False
        self.ids: torch.Tensor | None = None
        self.ids_valid: torch.Tensor | None = None
        self.selected: torch.Tensor | None = None
        self.meter: Meter | None = None
        self.real: list[int] = []
        self.entry_bytes = 0
        self.compress_seconds = 0.0
        # the two latest answers of `rotary`: full-attention layers of a model share one RoPE, so one computes it for all
        self._phases: list[tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]] = []

    # -- views -----------------------------------------------------------------------------------------------------
    def compressed(self) -> Iterator[CompressedLayer]:
        """The layers that laconic stores."""
        for i in self.layer_ids:
            layer = self.layers[i]
            assert isinstance(layer, CompressedLayer)
            yield layer

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens seen; the same for every layer, also behind a shortened stream."""
        return super().get_seq_length(layer_idx)

    @property
    def seen(self) -> int:
        """Tokens that the model has seen (padding included)."""
        return next(self.compressed()).seen

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values stored in the compressed layers."""
        return sum(layer.nbytes for layer in self.compressed())

    @property
    def allocated(self) -> int:
        """Bytes held in memory by the compressed layers, spare capacity and columns included."""
        return sum(layer.allocated for layer in self.compressed())

    # -- batch changes: what is known per sequence follows the layers ----------------------------------------------
    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        super().reorder_cache(beam_idx)
        self._rows(beam_idx.tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._rows([row for row in range(len(self.real)) for _ in range(repeats)])

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        super().batch_select_indices(indices)
        self._rows(indices.nonzero()[:, 0].tolist() if indices.dtype == torch.bool else indices.tolist())

    def crop(self, tokens_to_remove: int) -> None:
        tokens_to_remove = int(tokens_to_remove)  # transformers 5.16 passes a tensor
        super().crop(tokens_to_remove)
        self.real = [count + tokens_to_remove for count in self.real]

    def reset(self) -> None:
        super().reset()
        self.real, self.protected, self.ids, self.ids_valid = [], None, None, None
        self.protection_checked = self.unfinished = False

    def _rows(self, rows: list[int]) -> None:
        self.real = [self.real[row] for row in rows]
        if self.protected is not None:
            self.protected = self.protected[rows]

    def bytes_per_entry(self, keys: torch.Tensor, values: torch.Tensor) -> int:
        """Bytes that one token of one sequence costs over all compressed layers."""
        per_head = keys.shape[-1] * keys.itemsize + values.shape[-1] * values.itemsize
        self.entry_bytes = len(self.layer_ids) * keys.shape[1] * per_head
        return self.entry_bytes

    def count(self, layer: CompressedLayer, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Meter one layer's pass: q [B, H, T, D] against what is stored and the T new entries."""
        self.bytes_per_entry(keys, values)
        if self.meter is None or self.step is None:
            return
        batch, tokens = q.shape[0], q.shape[2]
        stored = sum(part.entries for part in layer.parts) // keys.shape[1]
        pairs = tokens * stored + batch * tokens * (tokens + 1) // 2
        self.meter.layer(self.layer_ids[layer.number], batch, tokens, pairs, self.step.prefill)

    # -- what happens after a layer's attention --------------------------------------------------------------------
    def after_prefill(
        self,
        layer: CompressedLayer,
        q: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        columns: dict[str, torch.Tensor],
        scale: float,
        softcap: float | None,
    ) -> None:
        """Store the new entries, or let the method choose what stays of old and new ones together."""
        step = self.step
        assert step is not None
        self.selected = None
        if self.method is None or step.hold or self.method.neutral:
            layer.append(keys, values, columns)
            return
        began = time.perf_counter()
        before = keys.shape[2] + layer.stored
        all_keys, all_values, all_columns = layer.everything(keys, values, columns)
        seen = self._observe(layer, q, all_keys, all_values, all_columns, scale, softcap)
        selection = self.method.select(seen)
        self.selected = self.method.stream(seen)
        all_columns |= self.method.columns(seen)
        if selection is not None:
            all_columns["index"] = seen.index
            layer.replace(all_keys, all_values, all_columns, selection, self.method.ragged)
        else:
            layer.parts = [DensePart(all_keys, all_values, all_columns)]
        self.trace.add(self.layer_ids[layer.number], self.method.name, before, layer.stored, self.selected)
        self.compress_seconds += time.perf_counter() - began

    def after_decode(self, layer: CompressedLayer, q: torch.Tensor, scale: float, softcap: float | None) -> None:
        """One token was appended: methods that evict while decoding forget what is over their budget."""
        step, method, part = self.step, self.method, layer.parts[-1]
        assert step is not None
        if method is None or step.hold or method.neutral or not method.decodes or not isinstance(part, DensePart):
            return
        began = time.perf_counter()
        keys, values, columns = part.padded()
        seen = self._observe(layer, q, keys, values, columns, scale, softcap, stored=True)
        part.write(method.columns(seen))
        over = [real - target for real, target in zip(seen.real, seen.targets, strict=True)]
        if max(over) == 1:
            evict = torch.tensor(over, device=keys.device)[:, None].expand(keys.shape[:2]) > 0
            rank = method.rank(seen)
            if seen.valid is not None:
                rank = rank.masked_fill(~seen.valid, float("inf"))
            if "index" not in columns:  # the first eviction of all: from now on the place says nothing about the token
                part.write({"index": seen.index})
            part.replace(rank.argmin(-1), evict)
        elif max(over) > 1 and (selection := method.select(seen)) is not None:
            layer.replace(keys, values, {**part.columns, "index": seen.index}, selection, method.ragged)
        layer.evicted = layer.evicted or max(over) > 0
        self.compress_seconds += time.perf_counter() - began

    def _observe(
        self,
        layer: CompressedLayer,
        q: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        columns: dict[str, torch.Tensor],
        scale: float,
        softcap: float | None,
        stored: bool = False,
    ) -> Observation:
        step = self.step
        assert step is not None and self.method is not None
        per_entry = self.bytes_per_entry(keys, values)
        b, h, n = keys.shape[:3]
        index = columns.get("index")
        if index is None:
            index = torch.arange(n, device=keys.device, dtype=torch.int32).expand(b, h, n)
        valid = columns.get("valid")
        real = [n] * b if valid is None else valid.sum(-1).amax(1).tolist()
        protected = None
        if self.protected is not None:
            known = self.protected.shape[1]
            inside = (index >= 0) & (index < known)
            at = index.long().clamp(0, known - 1)
            protected = self.protected[:, None].expand(b, h, known).gather(2, at) & inside
            if valid is not None:
                protected = protected & valid
        targets = self.method.targets(layer.number, len(self.layer_ids), step, real, per_entry)
        past = columns if stored else {k: v[..., : n - q.shape[2]] for k, v in columns.items()}
        return Observation(
            layer=layer.number,
            layers=len(self.layer_ids),
            decoder_layer=self.layer_ids[layer.number],
            depth=len(self.layers),
            queries=q,
            keys=keys,
            values=values,
            index=index,
            valid=valid,
            columns=past,
            protected=protected,
            real=real,
            targets=targets,
            scale=scale,
            softcap=softcap,
            step=step,
            rotary=self._rotary(layer.number),
        )

    def _rotary(self, number: int) -> Rotary:
        rotary, layer = self.rotary, self.layer_ids[number]
        if rotary is None:
            raise SessionError("this cache was made outside of a session; methods that undo RoPE need one.")

        def phases(positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            for known, cos_sin in self._phases:
                if known.shape == positions.shape and torch.equal(known, positions):
                    return cos_sin
            self._phases = [*self._phases[-1:], (positions, rotary(layer, positions))]
            return self._phases[-1][1]

        return phases

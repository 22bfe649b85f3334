"""Rolling back: what may be taken back waits until it is known to stay, and what was stored whole can be removed again.

Assisted decoding has the model verify several drafted tokens in one pass, and then crops the cache by those that were wrong.
A draft must not be stored before that: a method might evict others for it, merge it or pack it. So a layer that records its
past (transformers' `activate_past_recording`) attends to generated tokens like to all others, but stores them only when
`crop` has said which of them stay. They are stored one by one then, as if they had been decoded: every method does with
them what it does while decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

from laconic.cache.parts.base import DensePart
from laconic.errors import SessionError

if TYPE_CHECKING:
    from laconic.cache.cache import CompressedCache
    from laconic.cache.incoming import Pass
    from laconic.cache.layer import CompressedLayer
    from laconic.step import Step


class Drafts:
    """The generated tokens of one layer that wait.

    Attributes:
        part: their entries, attended like every part; None while there are none.
    """

    def __init__(self) -> None:
        self.part: DensePart | None = None
        self._passes: list[tuple[Pass, Step]] = []

    @property
    def length(self) -> int:
        return 0 if self.part is None else self.part.length

    def add(self, new: Pass, step: Step) -> None:
        """The tokens of a pass, `new`, which `step` describes."""
        b, h, t = new.keys.shape[:3]
        columns = {**new.columns, "index": step.token_index(b)[:, None].expand(b, h, t)}
        if self.part is None:
            self.part = DensePart(new.keys, new.values, columns)
        else:
            self.part.append(new.keys, new.values, columns)
        self._passes.append((new.copied(), step))  # a view would keep the whole pass in memory

    def buffers(self) -> Iterator[torch.Tensor]:
        """Every tensor that is kept in memory until it is known which tokens stay."""
        if self.part is not None:
            yield from self.part.buffers()
        for new, _ in self._passes:
            yield from (new.queries, new.keys, new.values, *new.columns.values())

    def drop(self, n: int) -> None:
        """Forget the last `n` of them."""
        if n == 0:
            return
        assert self.part is not None
        self.part.drop(n)
        while n:
            new, step = self._passes.pop()
            rest = step.length - n
            if rest > 0:
                self._passes.append((new.rows(0, rest), step.but_last(n)))
            n = max(0, -rest)
        if not self._passes:
            self.part = None

    def store(self, layer: CompressedLayer) -> None:
        """All of them stay: store one after the other."""
        passes, cache = self._passes, layer.cache
        self.part, self._passes = None, []
        running = cache.step
        for new, step in passes:
            for j in range(step.length):
                cache.step = step.but_last(step.length - 1 - j).last(1)
                layer.decoded(new.rows(j, j + 1), cache.step)
        cache.step = running

    def map(self, f: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Move the tensors elsewhere; rows of the batch change only when nothing waits."""
        if self.part is not None:
            self.part.map(f)
        self._passes = [(new.mapped(f), step) for new, step in self._passes]


def begin(cache: CompressedCache, step: Step) -> None:
    """A pass begins: drafts that come with it make the cache record its past. A new prompt ends that, unless it was asked
    for anew, and whatever still waits then, stays."""
    assert step.generated is not None
    if step.prefill:
        for layer in cache.compressed():
            layer.commit()
        if not step.generated and not cache.recording_asked:
            for any_layer in cache.layers:
                any_layer.record_past = False  # type: ignore[union-attr]
        cache.recording_asked = False
    if step.generated > 1 or (step.prefill and step.generated):
        asked = cache.recording_asked
        cache.activate_past_recording()
        cache.recording_asked = asked


def crop(cache: CompressedCache, n: int) -> None:
    """Remove the last `n` tokens from all layers, or, where one of them cannot, from none; all others stay.

    Raises:
        SessionError: they were there already when entries were last evicted, merged or packed.
    """
    for layer in cache.compressed():
        check(layer, n)
    compressed = set(cache.layer_ids)
    others = [layer for i, layer in enumerate(cache.layers) if i not in compressed]
    for any_layer in (*others, *cache.compressed()):  # the others may refuse, too, and do so at the first of them
        any_layer.crop(-n)  # type: ignore[union-attr]


def crop_layer(layer: CompressedLayer, n: int) -> None:
    """The same for one layer; what the cache itself knows of the tokens goes with its first."""
    check(layer, n)
    before = layer.lengths
    waited = min(n, layer.drafts.length)
    layer.drafts.drop(waited)
    rest = n - waited
    for part in reversed(layer.parts):
        few = min(rest, part.length)
        part.drop(few)
        rest -= few
    layer.seen = max(0, layer.seen - n)  # a layer that runs without attention has seen nothing
    if layer.seen == 0:
        layer.parts, layer.state = [], {}
    if layer.number == 0:
        layer.cache.figures.rolled_back(n)
        _forget(layer.cache, (before - layer.lengths)[:, 0].tolist())
    layer.commit()


def _forget(cache: CompressedCache, lost: list[int]) -> None:
    """`lost`: real tokens that each batch row has lost; padding may have been among the removed."""
    if cache.real:  # empty until the first pass has finished
        cache.real = [count - n for count, n in zip(cache.real, lost, strict=True)]
    if cache.ids is not None and cache.ids_valid is not None and cache.protected is not None:
        known = min(cache.ids.shape[1], cache.seen)
        cache.ids, cache.ids_valid = cache.ids[:, :known], cache.ids_valid[:, :known]
        cache.protected = cache.protected[:, :known]


def check(layer: CompressedLayer, n: int) -> None:
    """Raise `SessionError` where the last `n` tokens reach back beyond what was stored whole."""
    most = layer.seen - layer.pinned
    if n > most and layer.attended:
        raise SessionError(
            f"crop(-{n}): of the {layer.seen} tokens in this cache only the last {most} can be rolled back, because entries "
            "were evicted, merged or packed when the others came. Roll back less, or call cache.activate_past_recording() "
            "before tokens that may have to be taken back."
        )

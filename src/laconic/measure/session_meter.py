"""How one session reads the figures of its caches: what they come to, and whether a budget was met."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING

from laconic.measure.cost import FlopCounter, Shape
from laconic.measure.figures import Figures
from laconic.measure.stats import Stats
from laconic.method import Method
from laconic.step import Step

if TYPE_CHECKING:
    from laconic.cache.cache import CompressedCache


class SessionMeter:
    """What the caches of one session are held to, and what their figures come to.

    Args:
        shape: sizes of the decoder.
        budgeted: the method whose budget the cache is held to; None if no method chooses or packs entries.
        stores_less: other methods may leave fewer entries than that budget allows, so falling short of it is no fault.
    """

    def __init__(self, shape: Shape, budgeted: Method | None, stores_less: bool = False):
        self.shape, self.budgeted, self.stores_less = shape, budgeted, stores_less
        self._warned = False

    def stats(self, cache: CompressedCache | None) -> Stats:
        """All figures of `cache`, and of all passes since it was new; zeros without one."""
        figures = Figures() if cache is None else cache.figures
        flops = figures.flops or FlopCounter(self.shape)
        stats = Stats(
            tokens_out=figures.decoded,
            encoder_seconds=figures.encoder_seconds,
            prefill_seconds=figures.prefill_seconds,
            decode_seconds=figures.decode_seconds,
            compress_seconds=figures.compress_seconds,
            prefill_flops=flops.prefill,
            decode_flops=flops.decode,
            method_flops=figures.method_flops if figures.counting else None,
            method_decode_flops=figures.method_decode_flops if figures.counting else None,
            stream=dict(flops.stream),
            visual_in=figures.shown,
            visual=dict(flops.visual),
        )
        if cache is None or not any(cache.real):
            return stats
        real = cache.real
        seen = sum(real) / len(real)
        per_entry = cache.entry_bytes
        stats.tokens_in = seen - stats.tokens_out
        stats.layers = list(cache.layer_ids)
        stats.entries = [float(layer.lengths.float().mean()) for layer in cache.compressed()]
        stats.kv_bytes, stats.kv_bytes_allocated = cache.nbytes, cache.allocated
        stats.kv_bytes_waiting = cache.late.nbytes
        stats.kv_bytes_full = sum(real) * per_entry
        method = self.budgeted
        if method is not None:
            stats.asked = method.budget.share(real, per_entry)
        if method is not None and method.in_bytes and not method.neutral:
            stats.achieved = stats.kv_bytes / stats.kv_bytes_full
        else:
            stats.achieved = sum(stats.entries) / len(stats.entries) / seen
        prompt = [round(stats.tokens_in) if i in cache.layer_ids else 0 for i in range(self.shape.layers)]
        stats.prefill_flops_full = len(real) * self.shape.prefill_flops(prompt)
        return stats

    def check(self, step: Step, cache: CompressedCache) -> None:
        """Warn, once per session, about a budget that was missed by over 2 % (and more than one entry). Falling short of a
        budget in bytes is no miss, nor is storing fewer entries where other methods leave fewer to store (`stores_less`)."""
        method = self.budgeted
        if method is None or step.hold or method.budget.neutral or self._warned or not any(step.real):
            return
        stats = self.stats(cache)
        tokens = sum(step.real) / len(step.real)
        fewer = method.in_bytes or self.stores_less
        gap = stats.achieved - stats.asked if fewer else abs(stats.achieved - stats.asked)
        if gap > 0.02 * stats.asked and gap * tokens > 1:
            self._warned = True
            of = "bytes" if method.in_bytes else "tokens"
            warnings.warn(
                f"{method.name} was asked to keep {stats.asked:.4f} of the {of} and kept {stats.achieved:.4f}.",
                stacklevel=_callers_level(),
            )


def _callers_level() -> int:
    """The `stacklevel` at which a warning points at the first line outside of laconic, transformers and torch."""
    level, frame = 1, sys._getframe(1)
    inner = ("laconic.", "transformers.", "torch.")
    while frame.f_back is not None and f"{frame.f_globals.get('__name__', '')}.".startswith(inner):
        level, frame = level + 1, frame.f_back
    return level

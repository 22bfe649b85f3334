"""The seam of methods whose work on a text is done when a session opens: it charges the session for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from laconic.cache.cache import CompressedCache
from laconic.errors import SessionError
from laconic.measure.stats import Stats
from laconic.seams import Order, Seam

if TYPE_CHECKING:
    from laconic.measure.session_meter import SessionMeter

BEFORE = -1
"""Stands for the layer at which a text is shortened, in a trace."""


class TextSeam(Seam):
    """Adds what was dropped from the text, and what that cost, to the figures of what the model then read."""

    order = Order.LAST

    def check(self) -> None:
        for method in self.methods:
            if method.done is None:
                raise SessionError(
                    f"{method.name} shortens text before a model reads it, and compress() gets token ids: use "
                    f"laconic.shorten(text, {method.name!r}), laconic.read(model, tokenizer, text, {method.name!r}), or "
                    "`laconic run` and `laconic compress`."
                )

    def adopt(self, cache: CompressedCache) -> None:
        told = {event.method for event in cache.trace.events if event.layer == BEFORE}
        for method in self.methods:
            if method.name not in told:
                cache.trace.add(BEFORE, method.name, method.done.tokens_in, method.done.tokens_out)

    def stats(self, stats: Stats, cache: CompressedCache, meter: SessionMeter) -> None:
        if not any(cache.real):
            return
        for method in self.methods:
            done = method.done
            stats.asked *= done.asked
            stats.achieved *= done.achieved
            stats.tokens_in += done.tokens_in - done.tokens_out
            stats.kv_bytes_full += (done.tokens_in - done.tokens_out) * cache.entry_bytes
            stats.prefill_flops += done.flops
            stats.prefill_seconds += done.seconds
            stats.compress_seconds += done.seconds
        prompt = [round(stats.tokens_in) if i in cache.layer_ids else 0 for i in range(meter.shape.layers)]
        stats.prefill_flops_full = meter.shape.prefill_flops(prompt)

"""The seam that times the vision encoder of a session's model."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from laconic.families.vision.clock import EncoderClock, encoder_clock
from laconic.seams import Host, Order, Seam
from laconic.step import Step

if TYPE_CHECKING:
    from laconic.cache.cache import CompressedCache


class EncoderSeam(Seam):
    """Times the vision encoder of a session's model, whatever its methods; a model without one costs nothing.

    It opens after the stream seam: what methods do inside the encoder in post-hooks is part of the encoder's time.
    """

    order = Order.ENCODER

    def __init__(self, host: Host, methods: tuple[Any, ...]):
        super().__init__(host, methods)
        self.clock: EncoderClock | None = None

    def install(self, restore: ExitStack) -> None:
        self.clock = encoder_clock(self.host.model)
        for handle in [] if self.clock is None else self.clock.handles:
            restore.callback(handle.remove)

    def finish(self, step: Step, cache: CompressedCache) -> None:
        if self.clock is not None:  # taken when a pass ends, because `generate()` encodes before the pass begins
            cache.figures.encoder_seconds += self.clock.take()

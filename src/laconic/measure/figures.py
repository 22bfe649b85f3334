"""What one cache has cost so far: clocks and counters that stay with the cache, whichever session or thread uses it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from torch import Tensor

from laconic.measure.cost import FlopCounter
from laconic.measure.work import Work
from laconic.step import Step


@dataclass
class Figures:
    """Clocks and counters of all passes since a cache was new. A copy of the cache takes a copy of them along.

    Attributes:
        flops: what ran; None until a session uses the cache for the first time, which knows the model's sizes.
        encoder_seconds, prefill_seconds, decode_seconds: as in `Stats`; `compress_seconds` is the methods' share of them.
        counting: whether the FLOPs of the methods' own work are counted; once they were not, the sums stay unknown.
        method_flops, method_decode_flops: of the methods' own work, for prompts and for decoded tokens.
        shown: visual tokens per sequence, before any cut, where a seam counts them.
        stretches: tokens per sequence (padding included) of prompt and of decoding in turns, in the order in which they
            came: (decoded, tokens). Neighbours differ in `decoded`, and none is empty.
    """

    flops: FlopCounter | None = None
    encoder_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    compress_seconds: float = 0.0
    counting: bool = True
    method_flops: int = 0
    method_decode_flops: int = 0
    shown: float = 0.0
    stretches: list[tuple[bool, int]] = field(default_factory=list)

    @property
    def decoded(self) -> int:
        """Tokens of each sequence that were decoded, not read, and are still counted as seen."""
        return sum(tokens for decoded, tokens in self.stretches if decoded)

    def work(self, step: Step) -> Work:
        """While it is open, methods do work of their own for a pass."""
        return Work(self, step.prefill)

    def worked(self, flops: int, prefill: bool) -> None:
        """Methods' own work took `flops`, for a pass over prompt or over what was generated."""
        if prefill:
            self.method_flops += flops
        else:
            self.method_decode_flops += flops

    def ran(self, step: Step, seconds: float, logits: Tensor | None) -> None:
        """One pass of the model took `seconds` and gave `logits` [B, positions, V]; None where it has no head."""
        if self.flops is not None and logits is not None:
            self.flops.head(logits.shape[0] * logits.shape[1], step.prefill)
        if step.prefill:
            self.prefill_seconds += seconds
        else:
            self.decode_seconds += seconds
        generated = step.generated or 0
        self._add(False, step.length - generated)
        self._add(True, generated)

    def rolled_back(self, tokens: int) -> None:
        """The latest `tokens` of each sequence are no longer counted as seen: drafts that were rejected, say."""
        while tokens > 0 and self.stretches:
            decoded, last = self.stretches.pop()
            if last > tokens:
                self.stretches.append((decoded, last - tokens))
            tokens -= last

    def take_early(self) -> None:
        """What methods did in this thread before the pass, in hooks on the encoder, was done for this cache."""
        self.method_flops += _EARLY.figures.method_flops
        _EARLY.figures.method_flops = 0

    def _add(self, decoded: bool, tokens: int) -> None:
        if not tokens:
            return
        if self.stretches and self.stretches[-1][0] == decoded:
            tokens += self.stretches.pop()[1]
        self.stretches.append((decoded, tokens))


class _OfThread(threading.local):
    """Images are encoded in the thread that calls the model, and by `generate()` before the cache is known."""

    def __init__(self) -> None:
        self.figures = Figures()


_EARLY = _OfThread()


def early_work() -> Work:
    """While it is open, a method does work of its own before the pass that it is for."""
    return Work(_EARLY.figures, prefill=True)


def forget_early() -> None:
    """What this thread encoded and no pass followed was done for no cache; a session must not charge it to its first."""
    _EARLY.figures.method_flops = 0

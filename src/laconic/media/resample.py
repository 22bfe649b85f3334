"""Another sampling rate, by a polyphase filter: a Kaiser-windowed sinc (Crochiere and Rabiner 1983, ch. 2 and 4)."""

from __future__ import annotations

from math import gcd

import numpy as np
from numpy.typing import NDArray

CROSSINGS = 24
"""Zero crossings of the sinc on each side, at the lower of the two rates."""
BETA = 9.0
"""Of the Kaiser window: what is folded back is about 90 dB weaker."""
ROLLOFF = 0.94
"""Cut-off as a share of half the lower rate, so that the transition ends about where folding begins."""


def resampled(samples: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    """Samples [n] taken `rate` times a second, as ``ceil(n * wanted / rate)`` samples taken `wanted` times a second.

    With wanted / rate = L / M in lowest terms, ``y[k] = sum_j h[k M - j L] x[j]``: the outputs that share k M mod L are one
    filter over strided windows of x.
    """
    common = gcd(rate, wanted)
    up, down = wanted // common, rate // common
    if up == down:
        return samples
    half = CROSSINGS * max(up, down)
    taps = _filter(up, half, ROLLOFF / max(up, down))
    reach = half // up  # samples on each side that a filter of one phase may touch
    count = -(-len(samples) * up // down)
    padded = np.pad(samples, (reach, reach + 1))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    result = np.empty(count, dtype=np.float32)
    for first in range(min(up, count)):
        phase, start = first * down % up, first * down // up
        at = phase + up * np.arange(reach, -reach - 1, -1) + half
        inside = (at >= 0) & (at < len(taps))
        one = np.where(inside, taps[at.clip(0, len(taps) - 1)], 0.0).astype(np.float32)
        result[first::up] = windows[start::down][: len(range(first, count, up))] @ one
    return result


def _filter(up: int, half: int, cutoff: float) -> NDArray[np.float64]:
    """h[-half .. half]: low-pass at `cutoff` of half the rate between, with a gain of `up`."""
    n = np.arange(-half, half + 1)
    return up * cutoff * np.sinc(cutoff * n) * np.kaiser(2 * half + 1, BETA)

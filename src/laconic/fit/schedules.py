"""Factors on the learning rate by step."""

from __future__ import annotations

import math


def linear_decay(step: int, steps: int) -> float:
    """From 1 in step 0 to 0 after the last of `steps`."""
    return 1 - step / steps


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Linear from 0 to 1 over the share `warmup` of the steps, then a cosine to 0."""
    done = step / steps
    if done < warmup:
        return min(1.0, (done + 1 / steps) / warmup)  # a warm-up of less than one step ends at 1
    return (1 + math.cos(math.pi * (done - warmup) / (1 - warmup))) / 2

"""Films for codecs: one shape flies straight, and at every border between clips it turns back."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from laconic.tasks.scenes.scenes import COLOURS, KINDS, Scene, render
from laconic.tasks.scenes.small import small_scene

DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
FLIGHT_WORDS = (*COLOURS, *KINDS, *DIRECTIONS)
"""All words of what is said of a flight."""


class Flight:
    """The flight number `seed` of `size` x `size` pixels: a shape leaves the middle in one of four directions, drifting a
    little, and in every other clip flies back; within a clip its two ends say everything."""

    def __init__(self, seed: int, size: int):
        rng = random.Random(f"flight-{seed}-{size}")
        self.scene = small_scene(seed, size, most=1)
        self.direction = rng.choice(list(DIRECTIONS))
        dx, dy = DIRECTIONS[self.direction]
        x, y, far, drift = (rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.6), rng.uniform(0.15, 0.3), rng.uniform(-0.1, 0.1))
        self.start = x * size, y * size
        self.end = (x + far * dx + drift * abs(dy)) * size, (y + far * dy + drift * abs(dx)) * size

    def said(self, direction: bool = True) -> str:
        """What is seen: "red circle left", or without where it flies, "red circle", which fits four futures."""
        name = self.scene.shapes[0].name
        return f"{name} {self.direction}" if direction else name

    def at(self, clips: float) -> Scene:
        """After so many clips."""
        back = clips % 2
        share = back if back <= 1 else 2 - back
        x, y = (a + share * (b - a) for a, b in zip(self.start, self.end, strict=True))
        return replace(self.scene, shapes=(replace(self.scene.shapes[0], x=x, y=y),))

    def frames(self, clips: int, frames: int) -> NDArray[np.uint8]:
        """Clips of so many frames that share their borders, ``[clips * (frames - 1) + 1, size, size, 3]``."""
        return np.stack([render(self.at(i / (frames - 1))) for i in range(clips * (frames - 1) + 1)])

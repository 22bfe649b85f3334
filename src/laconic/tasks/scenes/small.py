"""Small scenes for codecs: one to four shapes without signs, drawn at their final size on every kind of background.

They are of mixed complexity on purpose: a plain background with one shape takes few bits, checks and noise take many.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from laconic.tasks.scenes.scenes import BACKGROUNDS, COLOURS, KINDS, Scene, Shape, render

SIZE = 32


def small_scene(seed: int, size: int = SIZE, most: int = 4) -> Scene:
    """The scene number `seed` of `size` x `size` pixels with one to `most` shapes, which may overlap; radii are 1/8 to
    1/4 of the side."""
    rng = random.Random(f"small-{seed}-{size}")
    shapes = [
        Shape(
            rng.choice(KINDS),
            rng.choice(list(COLOURS)),
            rng.uniform(0.2, 0.8) * size,
            rng.uniform(0.2, 0.8) * size,
            rng.uniform(0.125, 0.25) * size,
        )
        for _ in range(rng.randint(1, most))
    ]
    return Scene(size, rng.choice(BACKGROUNDS), rng.randrange(2**31), tuple(shapes), ())


def small_scenes(first: int, count: int, size: int = SIZE) -> NDArray[np.uint8]:
    """The images [count, size, size, 3] of the scenes from number `first` on."""
    return np.stack([render(small_scene(first + i, size)) for i in range(count)])


def small_clip(seed: int, frames: int, size: int = SIZE) -> NDArray[np.uint8]:
    """The clip number `seed`, [frames, size, size, 3]: the shape of a scene flies straight on and bounces off the edges."""
    scene, rng = small_scene(seed, size, most=1), random.Random(f"clip-{seed}-{size}")
    shape, speed = scene.shapes[0], (rng.uniform(-0.08, 0.08) * size, rng.uniform(-0.08, 0.08) * size)

    def bounced(start: float, step: float) -> float:
        low, high = shape.radius, size - shape.radius
        around = (start + step - low) % (2 * (high - low))
        return low + min(around, 2 * (high - low) - around)

    def at(frame: int) -> Scene:
        here = replace(shape, x=bounced(shape.x, frame * speed[0]), y=bounced(shape.y, frame * speed[1]))
        return replace(scene, shapes=(here,))

    return np.stack([render(at(frame)) for frame in range(frames)])

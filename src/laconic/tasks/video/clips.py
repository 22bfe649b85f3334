"""Procedural clips: shapes that come, move and go one after another, and a sign that is there for a few frames.

A clip is a description drawn from a random generator; every frame of it is a scene of `laconic.tasks.scenes`, so the same
shapes, signs and backgrounds are drawn. Time is counted in frames, lengths in pixels. Shapes come into the upper half of
the image and the sign into the lower one, so nothing hides anything.
"""

import random
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from laconic.tasks.scenes.scenes import BACKGROUNDS, COLOURS, KINDS, SIGN_COLOURS, Scene, Shape, Sign, render

SIZE = 48
FRAMES = (4, 8, 16, 32)
"""Numbers of frames that clips are trained and tested at."""
RADII = (5.0, 7.0)
UPPER = 26
"""Shapes stay above this line, signs below it."""
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
MOST = 6
"""Most visits of a clip."""
STRETCHES = ("beginning", "middle", "end")
DOUBT = 0.08
"""A moment that is asked about is this share of the clip away from where one stretch ends and the next begins."""


@dataclass(frozen=True)
class Visit:
    """``shape`` is there from frame ``first`` to before ``stop`` and crosses the image on its ``way`` (None: rests)."""

    shape: Shape
    first: int
    stop: int
    way: str | None = None

    @property
    def name(self) -> str:
        return self.shape.name

    @property
    def moves(self) -> bool:
        """It is seen at two places at least."""
        return self.way is not None and self.stop - self.first > 1

    def at(self, frame: int) -> Shape:
        """The shape as it stands in ``frame``."""
        if not self.moves or self.way is None:
            return self.shape
        along = (frame - self.first) / (self.stop - 1 - self.first)
        dx, dy = WAYS[self.way]
        r = self.shape.radius
        reach = (SIZE if dx else UPPER) - 2 * r - 2
        sign = dx + dy
        place = 1 + r + reach * (along if sign > 0 else 1 - along)
        return replace(self.shape, x=place) if dx else replace(self.shape, y=place)


@dataclass(frozen=True)
class Clip:
    """Everything that determines ``frames`` images; the ``sign`` is there from frame ``shown`` to before ``gone``."""

    frames: int
    background: str
    texture: int
    visits: tuple[Visit, ...]
    sign: Sign
    shown: int
    gone: int

    def once(self) -> list[Visit]:
        """Visits of shapes that come once."""
        names = Counter(visit.name for visit in self.visits)
        return [visit for visit in self.visits if names[visit.name] == 1]

    def stretch(self, first: int, stop: int) -> str | None:
        """The third of the clip in whose inside the middle of frames ``first`` to ``stop`` lies; None in case of doubt."""
        middle = (first + stop) / (2 * self.frames)
        if min(abs(middle - 1 / 3), abs(middle - 2 / 3)) < DOUBT:
            return None
        return STRETCHES[int(3 * middle)]

    def scene(self, frame: int) -> Scene:
        """What is to be seen in ``frame``."""
        shapes = tuple(visit.at(frame) for visit in self.visits if visit.first <= frame < visit.stop)
        signs = (self.sign,) if self.shown <= frame < self.gone else ()
        return Scene(SIZE, self.background, self.texture, shapes, signs)


def draw(rng: random.Random, frames: int) -> Clip:
    """A random clip of ``frames`` frames, at least 4: two visits or more, of shapes of two to four names.

    No shape comes twice in a row, and whoever comes back has been away for a frame.
    """
    wanted = rng.randint(2, min(MOST, frames // 2))
    names = rng.sample([(colour, kind) for colour in COLOURS for kind in KINDS], rng.choice([2, 2, 3, 4]))
    cuts = sorted(rng.sample(range(1, frames), wanted - 1))
    visits: list[Visit] = []
    last = None
    for start, end in zip([0, *cuts], [*cuts, frames], strict=True):
        colour, kind = last = rng.choice([name for name in names if name != last])
        first = rng.randint(start, max(start, end - 2))
        stop = rng.randint(min(first + 2, end), end)
        radius = rng.uniform(*RADII)
        x, y = rng.uniform(radius + 1, SIZE - radius - 1), rng.uniform(radius + 1, UPPER - radius - 1)
        way = rng.choice([None, *WAYS]) if stop - first > 1 else None
        visits.append(Visit(Shape(kind, colour, x, y, radius), first, stop, way))
    sign = Sign(rng.choice(list(SIGN_COLOURS)), str(rng.randint(10, 99)), 0, 0, 2)
    sign = replace(sign, x=rng.randint(1, SIZE - 1 - sign.width), y=UPPER)
    length = rng.randint(1, max(1, frames // 4))
    shown = rng.randint(0, frames - length)
    return Clip(frames, rng.choice(BACKGROUNDS), rng.randrange(2**31), tuple(visits), sign, shown, shown + length)


def film(clip: Clip) -> NDArray[np.uint8]:
    """The frames [T, SIZE, SIZE, 3] of ``clip``."""
    return np.stack([render(clip.scene(frame)) for frame in range(clip.frames)])

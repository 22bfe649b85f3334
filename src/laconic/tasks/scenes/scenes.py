"""Procedural scenes: a description drawn from a random generator, its image, and what lies in each patch of it.

A scene has 2 to 8 shapes (kind, colour, size, position) and up to two signs with a small word or number, on a textured or
photo-like background. Everything follows from the description: no font file, no image file, the same pixels everywhere.
Lengths are pixels. ``size`` 96 is one view of the model; 192 is an image for any-resolution models (a thumbnail and
2 x 2 crops), with the same pixel sizes of small things, so that the thumbnail alone cannot show them.
"""

import math
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from laconic.tasks.scenes.glyphs import ALPHABET, HEIGHT, WIDTH, glyph

KINDS = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = {
    "red": (214, 38, 44),
    "orange": (247, 142, 28),
    "yellow": (248, 226, 62),
    "green": (42, 160, 66),
    "blue": (44, 84, 220),
    "purple": (146, 56, 186),
}
SIGN_COLOURS = {"white": (244, 244, 240), "black": (18, 18, 22)}
BACKGROUNDS = ("plain", "gradient", "stripes", "checks", "noise", "photo")
SIZE = 96
LARGE = 2 * SIZE
MIN_RADIUS, MAX_RADIUS = 5.0, 13.0
# Consonant, vowel, consonant(, vowel): about 9,000 words that no list holds, so a word must be read letter by letter.
_CONSONANTS, _VOWELS = "BCDFGHJKLMNPQRSTVWXYZ", "AEIOU"
Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Shape:
    """One shape: centre ``x``, ``y`` and ``radius`` in pixels."""

    kind: str
    colour: str
    x: float
    y: float
    radius: float

    @property
    def name(self) -> str:
        return f"{self.colour} {self.kind}"


@dataclass(frozen=True)
class Sign:
    """A white or black plate with ``text``: top left corner of its box, glyphs enlarged ``scale`` times."""

    colour: str
    text: str
    x: int
    y: int
    scale: int

    @property
    def pitch(self) -> int:
        """Pixels from one glyph to the next: no two centres of glyphs lie in one patch of 8 pixels."""
        return 8 if self.scale == 1 else 7 * self.scale

    @property
    def width(self) -> int:
        return self.pitch * len(self.text) + 3 * self.scale

    @property
    def height(self) -> int:
        return (HEIGHT + 4) * self.scale

    def corner(self, i: int) -> tuple[int, int]:
        """Top left pixel (x, y) of glyph ``i``."""
        return self.x + 2 * self.scale + i * self.pitch + (self.pitch - WIDTH * self.scale) // 2, self.y + 2 * self.scale


@dataclass(frozen=True)
class Scene:
    """Everything that determines an image of ``size`` x ``size`` pixels; ``texture`` seeds the background."""

    size: int
    background: str
    texture: int
    shapes: tuple[Shape, ...]
    signs: tuple[Sign, ...]


def draw(rng: random.Random, size: int = SIZE) -> Scene:
    """A random scene: signs first, then shapes, none touching another."""
    boxes: list[tuple[float, float, float, float]] = []

    def place(width: float, height: float) -> tuple[float, float] | None:
        for _ in range(40):
            x, y = rng.uniform(1, size - 1 - width), rng.uniform(1, size - 1 - height)
            if all(x + width + 2 < a or c + 2 < x or y + height + 2 < b or d + 2 < y for a, b, c, d in boxes):
                return x, y
        return None

    signs: list[Sign] = []
    for colour in rng.sample(list(SIGN_COLOURS), rng.choice([0, 1, 2, 2, 2])):
        sign = Sign(colour, word(rng), 0, 0, 1 if rng.random() < 0.75 else 2)
        corner = place(sign.width, sign.height)
        if corner:
            sign = Sign(colour, sign.text, round(corner[0]), round(corner[1]), sign.scale)
            signs.append(sign)
            boxes.append((sign.x, sign.y, sign.x + sign.width, sign.y + sign.height))
    shapes: list[Shape] = []
    wanted = rng.randint(2, 8)
    # Scenes of few kinds and colours make counts above one, and names that fit several shapes.
    kinds = rng.sample(KINDS, rng.choice([2, 3, 4, 6]))
    colours = rng.sample(list(COLOURS), rng.choice([2, 3, 4, 6]))
    while len(shapes) < wanted:
        low, high = math.log(MIN_RADIUS), math.log(MAX_RADIUS if wanted < 7 else 10.0)
        radius = math.exp(rng.uniform(low, high))
        corner = place(2 * radius, 2 * radius)
        if corner is None and len(shapes) >= 2:
            break
        if corner is not None:
            boxes.append((corner[0], corner[1], corner[0] + 2 * radius, corner[1] + 2 * radius))
            x, y = corner[0] + radius, corner[1] + radius
            shapes.append(Shape(rng.choice(kinds), rng.choice(colours), x, y, radius))
    return Scene(size, rng.choice(BACKGROUNDS), rng.randrange(2**31), tuple(shapes), tuple(signs))


def word(rng: random.Random) -> str:
    """A made-up word of three or four letters, or a number of two or three digits."""
    if rng.random() < 0.35:
        return str(rng.randint(10, 999))
    letters = [rng.choice(_CONSONANTS), rng.choice(_VOWELS), rng.choice(_CONSONANTS)]
    return "".join(letters + [rng.choice(_VOWELS)] * (rng.random() < 0.3))


def render(scene: Scene) -> NDArray[np.uint8]:
    """The image [size, size, 3] of ``scene``, with anti-aliased shapes.

    Raises ``ValueError`` for a background that is not one of :data:`BACKGROUNDS`.
    """
    if scene.background not in BACKGROUNDS:
        raise ValueError(f"background={scene.background!r} is unknown; choose one of {', '.join(BACKGROUNDS)}")
    rng = np.random.default_rng(scene.texture)
    image = _background(scene.background, scene.size, rng)
    for shape in scene.shapes:
        _paint(image, shape, rng)
    for sign in scene.signs:
        plate, ink = (SIGN_COLOURS[c] for c in (("white", "black") if sign.colour == "white" else ("black", "white")))
        image[sign.y : sign.y + sign.height, sign.x : sign.x + sign.width] = plate
        for i, character in enumerate(sign.text):
            (x, y), mask = sign.corner(i), glyph(character, sign.scale)
            image[y : y + mask.shape[0], x : x + mask.shape[1]][mask] = ink
    return np.clip(image, 0, 255).astype(np.uint8)


def _background(kind: str, size: int, rng: np.random.Generator) -> Array:
    """A muted background [size, size, 3]; ``photo`` is soft noise of several octaves with a vignette."""
    y, x = _grid(size)
    grey = 50 + 150 * rng.random()
    first, second = (grey + 28 * (rng.random((2, 3)) - 0.5) + np.array([[0.0], [60 * (rng.random() - 0.5)]])).astype(
        np.float32
    )
    blend: Array = np.zeros((size, size), np.float32)
    if kind in ("gradient", "stripes"):
        angle = 2 * math.pi * rng.random()
        along = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))
        period = 4 + 12 * rng.random()
        blend = along / size + 0.5 if kind == "gradient" else (np.sin(along * (2 * math.pi / period)) + 1) / 2
    elif kind == "checks":
        period = int(rng.integers(3, 12))
        blend = ((x // period + y // period) % 2).astype(np.float32)
    elif kind in ("noise", "photo"):
        octaves = (4, 8, 16, 32) if kind == "noise" else (2, 3, 6, 12)
        blend = sum((_smooth(rng, n, size) / (i + 1) for i, n in enumerate(octaves)), np.zeros((size, size), np.float32)) / 2
    image = first + blend[..., None] * (second - first)
    if kind == "photo":
        image += 24 * np.stack([_smooth(rng, 3, size) - 0.5 for _ in range(3)], -1)
        image *= (1 - 0.35 * (x * x + y * y) / (size * size / 2))[..., None]
    return (image + 5 * (rng.random((size, size, 1), dtype=np.float32) - 0.5)).astype(np.float32)


@lru_cache(maxsize=8)
def _grid(size: int) -> tuple[Array, Array]:
    """Rows and columns of pixel centres, measured from the middle of the image."""
    y, x = np.mgrid[:size, :size].astype(np.float32) - np.float32(size / 2 - 0.5)
    return y, x


def _smooth(rng: np.random.Generator, cells: int, size: int) -> Array:
    """Random values 0 to 1 on ``cells`` x ``cells``, enlarged smoothly to [size, size]."""
    coarse = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))


def _paint(image: Array, shape: Shape, rng: np.random.Generator) -> None:
    """Blend ``shape`` into ``image``: jittered colour, shading from one side, a darker rim."""
    r = shape.radius
    left, top = max(0, int(shape.x - r) - 1), max(0, int(shape.y - r) - 1)
    window = image[top : int(shape.y + r) + 2, left : int(shape.x + r) + 2]
    v, u = np.mgrid[: window.shape[0], : window.shape[1]].astype(np.float32)
    u, v = (u + left + 0.5 - shape.x) / r, (v + top + 0.5 - shape.y) / r
    outside = _distance(shape.kind, u, v) * r
    colour = np.array(COLOURS[shape.colour], np.float32) + 24 * (rng.random(3) - 0.5)
    angle = 2 * math.pi * rng.random()
    light = 1 + 0.12 * (u * math.cos(angle) + v * math.sin(angle)) - 0.35 * np.clip(outside + 1.2, 0, 1)
    cover = np.clip(0.5 - outside, 0, 1)[..., None]
    window += cover * (light[..., None] * colour - window)


def _distance(kind: str, u: Array, v: Array) -> Array:
    """Signed distance to the outline of ``kind`` of radius 1 (negative inside, near enough for anti-aliasing)."""
    if kind == "circle":
        return np.hypot(u, v) - 1
    if kind == "ring":
        return np.abs(np.hypot(u, v) - 0.75) - 0.25
    if kind == "square":
        return np.maximum(abs(u), abs(v)) - 0.88
    if kind == "triangle":
        return np.maximum(v - 0.85, (1.85 * abs(u) - 1.0 * v - 1.0) / math.hypot(1.85, 1.0))
    if kind == "cross":
        return np.minimum(np.maximum(abs(u) - 0.32, abs(v) - 1), np.maximum(abs(u) - 1, abs(v) - 0.32))
    # Five points: fold the angle into half a point, then the distance to the edge from a tip to a notch.
    folded = np.abs((np.arctan2(u, -v) + math.pi / 5) % (2 * math.pi / 5) - math.pi / 5)
    a, b = np.hypot(u, v) * np.cos(folded), np.hypot(u, v) * np.sin(folded)
    tip, notch = (1.05, 0.0), (0.42 * math.cos(math.pi / 5), 0.42 * math.sin(math.pi / 5))
    normal = (notch[1], tip[0] - notch[0])
    return ((a - tip[0]) * normal[0] + b * normal[1]) / math.hypot(*normal)


PATCH_CLASSES = (len(KINDS) + 1, len(COLOURS) + 1, 6, len(ALPHABET) + 1, 9)
"""Number of classes of each row of :func:`patch_labels`."""


def patch_labels(scene: Scene, patch: int = 8) -> NDArray[np.int64]:
    """What has its centre in each patch [5, P, P]: kind, colour and size bin of a shape; letter of a glyph and its place
    (1 to 4 in a white sign, 5 to 8 in a black one). Zero where nothing does.
    """
    side = scene.size // patch
    labels = np.zeros((len(PATCH_CLASSES), side, side), np.int64)
    for shape in scene.shapes:
        bin_ = 1 + int(4.999 * math.log(shape.radius / MIN_RADIUS) / math.log(MAX_RADIUS / MIN_RADIUS))
        what = (KINDS.index(shape.kind) + 1, list(COLOURS).index(shape.colour) + 1, bin_)
        labels[:3, int(shape.y) // patch, int(shape.x) // patch] = what
    for sign in scene.signs:
        for i, character in enumerate(sign.text):
            x, y = (corner + half * sign.scale for corner, half in zip(sign.corner(i), (2, 3), strict=True))
            place = 1 + i + 4 * (sign.colour == "black")
            labels[3:, y // patch, x // patch] = ALPHABET.index(character) + 1, place
    return labels

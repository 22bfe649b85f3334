"""Questions about a scene and their answers, taken from its description: a word, two words or a number each.

Everything is made from a seed. Seeds from `EVALUATION_SEED` on are for evaluation only; the training script draws its
scenes from smaller ones. Questions are asked only where the image leaves no doubt: a name must fit one shape, a position
must be clear of the middle, and one of two sizes must be a third larger.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from laconic.tasks.dialogue import different
from laconic.tasks.scenes.scenes import COLOURS, KINDS, SIZE, Scene, Shape, draw, render
from laconic.tasks.task import EVALUATION_SEED, Sample, about_image

__all__ = ["EVALUATION_SEED", "QUESTIONS", "Question", "dialogue", "make", "pose", "vocabulary"]

SIZE_RATIO = 1.35
"""Smallest ratio of two radii that are compared."""
COUNT_ALL, COUNT_COLOUR, ABSENT = 0.2, 0.45, 0.12
"""Shares of counting questions about all shapes, about a colour, and about absent things."""


@dataclass(frozen=True)
class Question:
    """A question about a scene: `kind` is one of `QUESTIONS`, `answer` the whole reference answer."""

    kind: str
    text: str
    answer: str


def drawn(scene: Scene) -> Image.Image:
    """`scene` as it is shown, RGB; drawn at every call."""
    return Image.fromarray(render(scene))


def article(name: str) -> str:
    """A name with its article."""
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _named(scene: Scene) -> list[Shape]:
    """Shapes whose colour and kind name no other shape."""
    names = Counter(shape.name for shape in scene.shapes)
    return [shape for shape in scene.shapes if names[shape.name] == 1]


def _existence(rng: random.Random, scene: Scene) -> Question | None:
    """Half of the names are in the image; most of the others share a colour and a kind with shapes that are."""
    names = {shape.name for shape in scene.shapes}
    if rng.random() < 0.5:
        name = rng.choice(sorted(names))
    else:
        near = [f"{a.colour} {b.kind}" for a in scene.shapes for b in scene.shapes]
        pool = near if rng.random() < 0.7 else [f"{colour} {kind}" for colour in COLOURS for kind in KINDS]
        absent = sorted(set(pool) - names)
        if not absent:
            return None
        name = rng.choice(absent)
    return Question("existence", f"Is there {article(name)}?", "yes" if name in names else "no")


def _count(rng: random.Random, scene: Scene) -> Question | None:
    draw_ = rng.random()
    if draw_ < COUNT_ALL:
        return Question("count", "How many shapes are there?", str(len(scene.shapes)))
    by_colour = draw_ < COUNT_ALL + COUNT_COLOUR
    there = [shape.colour if by_colour else shape.kind for shape in scene.shapes]
    known = tuple(COLOURS) if by_colour else KINDS
    # Drawn among the things, not the shapes, so that counts of one and of many are asked equally often.
    pool = sorted(set(known) - set(there)) if rng.random() < ABSENT else sorted(set(there))
    if not pool:
        return None
    thing = rng.choice(pool)
    several = f"{thing} shapes" if by_colour else plural(thing)
    return Question("count", f"How many {several} are there?", str(there.count(thing)))


def plural(kind: str) -> str:
    """Several shapes of a kind."""
    return kind + ("es" if kind == "cross" else "s")


def _colour(rng: random.Random, scene: Scene) -> Question | None:
    kinds = Counter(shape.kind for shape in scene.shapes)
    alone = [shape for shape in scene.shapes if kinds[shape.kind] == 1]
    if not alone:
        return None
    shape = rng.choice(alone)
    return Question("colour", f"What colour is the {shape.kind}?", shape.colour)


def _position(rng: random.Random, scene: Scene) -> Question | None:
    middle, margin = scene.size / 2, scene.size / 16
    clear = [s for s in _named(scene) if min(abs(s.x - middle), abs(s.y - middle)) > margin]
    if not clear:
        return None
    shape = rng.choice(clear)
    answer = f"{'top' if shape.y < middle else 'bottom'} {'left' if shape.x < middle else 'right'}"
    return Question("position", f"Where is the {shape.name}?", answer)


def _relation(rng: random.Random, scene: Scene) -> Question | None:
    """The side is the longer of the two distances, which must be at least half as long again as the other."""
    shapes = _named(scene)
    pairs = [(a, b) for a in shapes for b in shapes if a is not b]
    rng.shuffle(pairs)
    for a, b in pairs:
        across, down = a.x - b.x, a.y - b.y
        if max(abs(across), abs(down)) < 1.5 * min(abs(across), abs(down)) or max(abs(across), abs(down)) < 10:
            continue
        sideways = abs(across) > abs(down)
        answer = ("left" if across < 0 else "right") if sideways else ("above" if down < 0 else "below")
        return Question("relation", f"On which side of the {b.name} is the {a.name}?", answer)
    return None


def _reading(rng: random.Random, scene: Scene) -> Question | None:
    if not scene.signs:
        return None
    sign = rng.choice(scene.signs)
    return Question("reading", f"What does the {sign.colour} sign say?", sign.text)


def _comparing(rng: random.Random, scene: Scene) -> Question | None:
    """Sizes of two shapes, or how many there are of two colours or two kinds; both answers are equally likely."""
    if rng.random() < 0.5:
        shapes = _named(scene)
        pairs = [(a, b) for a in shapes for b in shapes if a.radius > SIZE_RATIO * b.radius]
        if not pairs:
            return None
        large, small = rng.choice(pairs)
        first, second, answer = (large, small, "yes") if rng.random() < 0.5 else (small, large, "no")
        return Question("comparing", f"Is the {first.name} larger than the {second.name}?", answer)
    by_colour = rng.random() < 0.5
    counts = Counter(shape.colour if by_colour else shape.kind for shape in scene.shapes)
    things = [(a, b) for a in sorted(counts) for b in sorted(counts) if counts[a] > counts[b]]
    if not things:
        return None
    more, less = rng.choice(things)
    first_thing, second_thing, answer = (more, less, "yes") if rng.random() < 0.5 else (less, more, "no")
    one, two = (f"{t} shapes" if by_colour else plural(t) for t in (first_thing, second_thing))
    return Question("comparing", f"Are there more {one} than {two}?", answer)


QUESTIONS: dict[str, Callable[[random.Random, Scene], Question | None]] = {
    "existence": _existence,
    "colour": _colour,
    "position": _position,
    "relation": _relation,
    "comparing": _comparing,
    "count": _count,
    "reading": _reading,
}
"""Question types; each function returns None where the scene has nothing to ask about."""


def pose(kind: str, seed: int, size: int = SIZE) -> tuple[Scene, Question]:
    """The first scene drawn from `kind` and `seed` that a question of this kind can be asked about, and that question.

    Deterministic in (kind, seed, size).

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in QUESTIONS:
        raise ValueError(f"kind={kind!r} is unknown; choose one of {', '.join(QUESTIONS)}")
    rng = random.Random(f"{kind}-{seed}-{size}")
    while True:
        scene = draw(rng, size)
        question = QUESTIONS[kind](rng, scene)
        if question:
            return scene, question


def make(kind: str, seed: int, size: int = SIZE) -> Sample:
    """The scene and question of `pose` as a sample of the task `kind`."""
    scene, question = pose(kind, seed, size)
    return about_image(kind, seed, question.text, (question.answer,), lambda: drawn(scene))


def dialogue(rng: random.Random, scene: Scene, questions: int, weights: dict[str, float]) -> list[Question]:
    """At most ``questions`` different questions about ``scene``, kinds drawn by ``weights``."""
    return different(rng, QUESTIONS, scene, questions, weights)


def vocabulary() -> Sequence[str]:
    """Sentences that hold every word of the questions and answers; the tokenizer is trained on them."""
    rng = random.Random(0)
    scenes = [draw(rng) for _ in range(400)]
    lines = [q for scene in scenes for q in dialogue(rng, scene, 12, dict.fromkeys(QUESTIONS, 1.0))]
    return [line for q in lines for line in (q.text, q.answer if q.kind != "reading" else "")]

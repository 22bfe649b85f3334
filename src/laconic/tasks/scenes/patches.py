"""One thing in one patch: what a single visual token carries (the benchmark of arXiv 2603.00510, section on patches).

An image that is plain otherwise shows one to four shapes of one name, or one character, within exactly one patch of the
encoder. The same image is asked whether the thing is there, for its colour and how many there are, so that colours and
counts can be judged where the thing was recognised.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from PIL import Image

from laconic.tasks.scenes.glyphs import ALPHABET, HEIGHT, WIDTH, glyph
from laconic.tasks.scenes.questions import Question, article, plural
from laconic.tasks.scenes.scenes import COLOURS, KINDS, SIGN_COLOURS, SIZE, Scene, Shape, render
from laconic.tasks.scenes.tasks import NEW_TOKENS
from laconic.tasks.task import Judged, Sample, Task, about_image, digest

ASKED = ("existence", "colour", "count", "reading")
"""What is asked about each image in turn; the last one about an image of its own, which shows a character."""
MARGIN = 0.6
"""Pixels between a shape and the edge of its cell, for smooth outlines."""


def things(rng: random.Random, size: int, patch: int) -> Scene:
    """One to four shapes of one colour and kind within a patch of a plain image."""
    kind, colour, count = rng.choice(KINDS), rng.choice(list(COLOURS)), rng.randint(1, 4)
    across = 1 if count == 1 else 2
    cell = patch / across
    left, top = (patch * rng.randrange(size // patch) for _ in range(2))
    places = rng.sample([(i, j) for i in range(across) for j in range(across)], count)
    shapes = (Shape(kind, colour, left + (i + 0.5) * cell, top + (j + 0.5) * cell, cell / 2 - MARGIN) for i, j in places)
    return Scene(size, "plain", rng.randrange(2**31), tuple(shapes), ())


def confined(scene: Scene, patch: int) -> Image.Image:
    """The image of `things`, plain outside of their patch: the points of a star reach beyond its radius."""
    image, shape = render(replace(scene, shapes=())), scene.shapes[0]
    left, top = (int(place // patch) * patch for place in (shape.x, shape.y))
    image[top : top + patch, left : left + patch] = render(scene)[top : top + patch, left : left + patch]
    return Image.fromarray(image)


def letter(rng: random.Random, size: int, patch: int) -> tuple[Callable[[], Image.Image], str, str]:
    """A plate that fills a patch of a plain image, with one character: what draws it, its text, the colour of the plate."""
    scene = Scene(size, "plain", rng.randrange(2**31), (), ())
    plate, ink = rng.sample(list(SIGN_COLOURS), 2)
    text, scale = rng.choice(ALPHABET), max(1, (patch - 1) // HEIGHT)
    left, top = (patch * rng.randrange(size // patch) for _ in range(2))
    y, x = top + (patch - HEIGHT * scale) // 2, left + (patch - WIDTH * scale) // 2

    def show() -> Image.Image:
        image = render(scene)
        image[top : top + patch, left : left + patch] = SIGN_COLOURS[plate]
        image[y : y + HEIGHT * scale, x : x + WIDTH * scale][glyph(text, scale)] = SIGN_COLOURS[ink]
        return Image.fromarray(image)

    return show, text, plate


def asked(rng: random.Random, scene: Scene, kind: str) -> Question:
    """A question about the shapes of `things`; half of the names asked for are there, others share the colour."""
    shape = scene.shapes[0]
    if kind == "colour":
        return Question(kind, f"What colour is the {shape.kind}?", shape.colour)
    if kind == "count":
        return Question(kind, f"How many {plural(shape.kind)} are there?", str(len(scene.shapes)))
    there = rng.random() < 0.5
    name = shape.name if there else f"{shape.colour} {rng.choice([other for other in KINDS if other != shape.kind])}"
    return Question(kind, f"Is there {article(name)}?", "yes" if there else "no")


@dataclass(frozen=True)
class PatchTask(Task):
    """Questions about what one patch shows, those of `ASKED` in turn, without end.

    Args:
        size: pixels a side. `patch`: of the encoder, in pixels; it divides `size`.
    """

    size: int
    patch: int

    modality: ClassVar[str] = "image"

    @property
    def new_tokens(self) -> int:
        return NEW_TOKENS

    @cached_property
    def data(self) -> str:
        return digest(self.samples(0, 4))

    def sample(self, number: int) -> Sample:
        image, which = divmod(number, len(ASKED))
        kind, rng = ASKED[which], random.Random(f"patch-{image}-{self.size}-{self.patch}")
        facts = {"kind": kind, "image": image}
        if kind == "reading":
            shown, text, plate = letter(random.Random(f"letter-{image}-{self.size}-{self.patch}"), self.size, self.patch)
            return about_image(self.name, number, f"What does the {plate} sign say?", (text,), shown, facts)
        scene = things(rng, self.size, self.patch)
        question = asked(rng, scene, kind)
        return about_image(self.name, number, question.text, (question.answer,), lambda: confined(scene, self.patch), facts)

    def score(self, answer: str, sample: Sample, turn: int = 0) -> float:
        return float(answer.strip() == sample.turns[turn].answers[0])

    def figures(self, answers: Sequence[Judged]) -> dict[str, float]:
        """Percent right of each kind, and of colours and counts where the thing was recognised."""
        seen = {answer.facts["image"] for answer in answers if answer.facts["kind"] == "existence" and answer.score == 1}
        found: dict[str, float] = {}
        for kind in ASKED:
            own = [answer for answer in answers if answer.facts["kind"] == kind]
            known = [answer for answer in own if answer.facts["image"] in seen]
            found |= {kind: percent(own)} if own else {}
            if known and kind in ("colour", "count"):
                found[f"{kind} where recognised"] = percent(known)
        return found


def percent(answers: Sequence[Judged]) -> float:
    """Mean score in percent."""
    return 100 * sum(answer.score for answer in answers) / len(answers)


PATCH_TASKS = (PatchTask("patch", SIZE, 8), PatchTask("patch_14", 336, 14))
"""For the testbed's encoder, and for CLIP at 336 pixels in patches of 14."""

"""Every answer is checked against the scene by rules written again here, and answers are balanced."""

import random
import re
from collections import Counter

import numpy as np
import pytest

from laconic.tasks.scenes.questions import EVALUATION_SEED, QUESTIONS, SIZE_RATIO, Question, dialogue, make, pose
from laconic.tasks.scenes.scenes import Scene, Shape, draw, render


def counted(scene: Scene, words: str) -> int:
    if words == "shapes":
        return len(scene.shapes)
    if words.endswith(" shapes"):
        return sum(shape.colour == words.removesuffix(" shapes") for shape in scene.shapes)
    return sum(
        shape.kind == words.removesuffix("s").removesuffix("se") + "s" * (words == "crosses") for shape in scene.shapes
    )


def the(scene: Scene, name: str) -> Shape:
    found = [shape for shape in scene.shapes if f"{shape.colour} {shape.kind}" == name]
    assert len(found) == 1, name
    return found[0]


def reference(scene: Scene, q: Question) -> str:
    """The answer worked out from the sentence."""

    def parts(pattern: str) -> tuple[str, ...]:
        match = re.fullmatch(pattern, q.text)
        assert match, q.text
        return match.groups()

    if q.kind == "existence":
        (name,) = parts(r"Is there an? (.+)\?")
        return "yes" if any(f"{s.colour} {s.kind}" == name for s in scene.shapes) else "no"
    if q.kind == "count":
        return str(counted(scene, parts(r"How many (.+) are there\?")[0]))
    if q.kind == "colour":
        (kind,) = parts(r"What colour is the (.+)\?")
        (shape,) = [s for s in scene.shapes if s.kind == kind]
        return shape.colour
    if q.kind == "position":
        shape = the(scene, parts(r"Where is the (.+)\?")[0])
        assert abs(shape.x - scene.size / 2) > 6 and abs(shape.y - scene.size / 2) > 6
        return f"{'top' if shape.y < scene.size / 2 else 'bottom'} {'left' if shape.x < scene.size / 2 else 'right'}"
    if q.kind == "relation":
        b, a = (the(scene, name) for name in parts(r"On which side of the (.+) is the (.+)\?"))
        sides = {"left": b.x - a.x, "right": a.x - b.x, "above": b.y - a.y, "below": a.y - b.y}
        first, second = sorted(sides, key=sides.__getitem__)[:1:-1]
        assert sides[first] >= 1.5 * sides[second] - 1e-9 and sides[first] >= 10
        return first
    if q.kind == "reading":
        (colour,) = parts(r"What does the (.+) sign say\?")
        return next(sign.text for sign in scene.signs if sign.colour == colour)
    if q.text.startswith("Are"):
        a, b = (counted(scene, words) for words in parts(r"Are there more (.+) than (.+)\?"))
        assert a != b
        return "yes" if a > b else "no"
    a, b = (the(scene, name).radius for name in parts(r"Is the (.+) larger than the (.+)\?"))
    assert max(a, b) > SIZE_RATIO * min(a, b)
    return "yes" if a > b else "no"


@pytest.mark.parametrize("size", [96, 192])
@pytest.mark.parametrize("kind", QUESTIONS)
def test_answers_follow_from_the_scene(kind, size):
    for seed in range(120):
        scene, question = pose(kind, seed, size)
        assert question.kind == kind and scene.size == size
        assert question.answer == reference(scene, question)


def test_a_sample_follows_from_its_seed():
    assert pose("count", 3) == pose("count", 3) and make("count", 3) == make("count", 3)
    assert pose("count", 3) != pose("count", 4) and make("count", 3) != make("count", 4)
    assert make("count", EVALUATION_SEED).number == EVALUATION_SEED


def test_a_sample_shows_the_scene_it_asks_about():
    (scene, question), sample = pose("reading", 3), make("reading", 3)
    assert (sample.question, sample.answers) == (question.text, (question.answer,))
    assert np.array_equal(np.asarray(sample.shown()[0]), render(scene))


@pytest.mark.parametrize(
    ("kind", "commonest"), [("existence", 0.56), ("comparing", 0.56), ("relation", 0.34), ("position", 0.34)]
)
def test_no_answer_is_much_commoner_than_another(kind, commonest):
    answers = Counter(make(kind, seed).answers[0] for seed in range(500))
    assert max(answers.values()) / 500 < commonest


def test_absent_names_are_near_misses():
    near = 0
    absent = [posed for posed in (pose("existence", seed) for seed in range(300)) if posed[1].answer == "no"]
    for scene, question in absent:
        colour, kind = question.text.rstrip("?").split()[-2:]
        near += any(s.colour == colour for s in scene.shapes) and any(s.kind == kind for s in scene.shapes)
    assert near / len(absent) > 0.6


def test_counts_reach_from_none_to_eight():
    answers = Counter(make("count", seed).answers[0] for seed in range(600))
    assert set(answers) == set("012345678")
    assert max(answers.values()) / 600 < 0.4


def test_a_dialogue_asks_different_questions_of_the_kinds_wanted():
    rng = random.Random(1)
    scene = draw(rng)
    asked = dialogue(rng, scene, 6, {"count": 1.0, "existence": 1.0})
    assert 1 < len(asked) <= 6 and len({q.text for q in asked}) == len(asked)
    assert {q.kind for q in asked} <= {"count", "existence"}


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="existence"):
        make("smell", 0)

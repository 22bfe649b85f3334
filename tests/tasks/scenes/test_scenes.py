"""Scenes follow from their generator alone, things do not touch, and the labels of patches say what is painted there."""

import random

import numpy as np
import pytest

from laconic.tasks.scenes.glyphs import ALPHABET, glyph
from laconic.tasks.scenes.scenes import (
    COLOURS,
    KINDS,
    MAX_RADIUS,
    MIN_RADIUS,
    PATCH_CLASSES,
    Scene,
    Shape,
    Sign,
    draw,
    patch_labels,
    render,
    word,
)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw(random.Random(seed), size) for seed in range(60) for size in (96, 192)]


def test_a_scene_follows_from_its_seed(scenes):
    assert draw(random.Random(7)) == draw(random.Random(7)) != draw(random.Random(8))
    np.testing.assert_array_equal(render(scenes[0]), render(draw(random.Random(0))))


def test_the_image_of_a_description_does_not_change():
    # Plain ground, one shape and one sign: what any machine must paint.
    scene = Scene(96, "plain", 5, (Shape("square", "blue", 30.0, 30.0, 10.0),), (Sign("white", "L7", 50, 60, 1),))
    image = render(scene)
    assert image.shape == (96, 96, 3) and image.dtype == np.uint8
    sign = image[60:71, 50:69]
    ink = sign.mean(-1) < 128
    wanted = np.zeros((11, 19), bool)
    wanted[2:9, 3:8], wanted[2:9, 11:16] = glyph("L"), glyph("7")
    np.testing.assert_array_equal(ink, wanted)
    blue = (image[..., 2].astype(int) - image[..., 0] > 60).sum()
    assert abs(blue - (2 * 0.88 * 10) ** 2) < 20
    np.testing.assert_array_equal(sign, np.where(wanted[..., None], (18, 18, 22), (244, 244, 240)))


def test_scenes_hold_what_they_promise(scenes):
    for scene in scenes:
        assert 2 <= len(scene.shapes) <= 8 and len(scene.signs) <= 2
        assert len({sign.colour for sign in scene.signs}) == len(scene.signs)
        boxes = [(s.x, s.y, s.x + s.width, s.y + s.height) for s in scene.signs]
        for s in scene.shapes:
            assert MIN_RADIUS <= s.radius <= MAX_RADIUS
            boxes.append((s.x - s.radius, s.y - s.radius, s.x + s.radius, s.y + s.radius))
        for i, (a, b, c, d) in enumerate(boxes):
            assert a >= 0 and b >= 0 and c <= scene.size and d <= scene.size
            for e, f, g, h in boxes[:i]:
                assert c < e or g < a or d < f or h < b


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_shape_shows_its_colour(kind, colour):
    shape = Shape(kind, colour, 48.0, 48.0, 12.0)
    bare, painted = (render(Scene(96, "plain", 3, shapes, ())).astype(float) for shapes in ((), (shape,)))
    changed = np.abs(painted - bare).sum(-1) > 40
    rows, columns = np.nonzero(changed)
    assert rows.min() >= 35 and rows.max() <= 60 and columns.min() >= 35 and columns.max() <= 60
    mean = painted[changed].mean(0)
    nearest = min(COLOURS, key=lambda name: np.abs(mean - np.array(COLOURS[name]) * 0.9).sum())
    assert nearest == colour


def test_kinds_have_different_outlines():
    masks = {}
    for kind in KINDS:
        pair = [render(Scene(96, "plain", 3, s, ())).astype(int) for s in ((), (Shape(kind, "red", 48.0, 48.0, 12.0),))]
        masks[kind] = np.abs(pair[1] - pair[0]).sum(-1) > 60
    for a in KINDS:
        for b in KINDS:
            if a < b:
                assert (masks[a] != masks[b]).sum() > 40, (a, b)


def test_patch_labels_name_the_thing_centred_there(scenes):
    for scene in scenes:
        labels = patch_labels(scene)
        assert labels.shape == (5, scene.size // 8, scene.size // 8)
        assert all(row.max() < classes for row, classes in zip(labels, PATCH_CLASSES, strict=True))
        for shape in scene.shapes:
            kind, colour, bin_ = labels[:3, int(shape.y // 8), int(shape.x // 8)]
            assert (KINDS[kind - 1], list(COLOURS)[colour - 1]) == (shape.kind, shape.colour)
            low, high = (MIN_RADIUS * (MAX_RADIUS / MIN_RADIUS) ** (b / 5) for b in (bin_ - 1, bin_))
            assert low * 0.999 <= shape.radius <= high * 1.001
        assert (labels[3] > 0).sum() == sum(len(sign.text) for sign in scene.signs)
        for sign in scene.signs:
            places = [i + 1 + 4 * (sign.colour == "black") for i in range(len(sign.text))]
            letters = [ALPHABET[labels[3][labels[4] == place].item() - 1] for place in places]
            assert "".join(letters) == sign.text


def test_words_are_short_and_many():
    rng = random.Random(0)
    words = [word(rng) for _ in range(2000)]
    assert all(2 <= len(w) <= 4 and (w.isdigit() or w.isupper()) for w in words)
    assert len(set(words)) > 1200
    assert 0.3 < sum(w.isdigit() for w in words) / 2000 < 0.4


def test_unknown_backgrounds_are_refused():
    with pytest.raises(ValueError, match="stripes"):
        render(Scene(96, "sky", 0, (), ()))

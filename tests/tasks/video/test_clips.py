"""What is drawn of a clip is what its description says, frame by frame."""

import random

import numpy as np
import pytest

from laconic.tasks.scenes.scenes import Shape, Sign
from laconic.tasks.video.clips import FRAMES, SIZE, STRETCHES, UPPER, Clip, Visit, draw, film

SIGN = Sign("white", "47", 3, UPPER, 2)


def clip(*visits: Visit, frames: int = 8, shown: int = 2, gone: int = 3) -> Clip:
    return Clip(frames, "plain", 5, visits, SIGN, shown, gone)


@pytest.mark.parametrize("frames", FRAMES)
def test_visits_follow_one_another_inside_the_upper_half(frames):
    for seed in range(60):
        made = draw(random.Random(seed), frames)
        assert len(made.visits) >= 2 and 0 <= made.shown < made.gone <= frames
        for before, after in zip(made.visits, made.visits[1:], strict=False):
            assert before.stop <= after.first and before.name != after.name
        for visit in made.visits:
            assert 0 <= visit.first < visit.stop <= frames
            for frame in range(visit.first, visit.stop):
                shape = visit.at(frame)
                assert shape.radius <= shape.x <= SIZE - shape.radius and shape.radius <= shape.y <= UPPER - shape.radius
        assert made.sign.y >= UPPER and made.sign.y + made.sign.height <= SIZE
        assert made.sign.x + made.sign.width <= SIZE


def test_nothing_is_drawn_before_it_comes_and_after_it_goes():
    made = clip(Visit(Shape("square", "red", 20, 12, 6), 3, 6))
    frames = film(made)
    empty = frames[0]
    assert frames.shape == (8, SIZE, SIZE, 3) and frames.dtype == np.uint8
    for number, frame in enumerate(frames):
        changed = (np.abs(frame.astype(int) - empty) > 40).any(-1)
        assert changed[12, 20] == (3 <= number < 6), number
        assert changed[UPPER:].any() == (number == 2), number


@pytest.mark.parametrize(("way", "axis", "sign"), [("left", 1, -1), ("right", 1, 1), ("up", 0, -1), ("down", 0, 1)])
def test_what_moves_goes_its_way_at_one_speed(way, axis, sign):
    visit = Visit(Shape("circle", "blue", 20, 12, 6), 2, 7, way)
    frames = film(clip(visit, shown=0, gone=1)).astype(int)
    places = []
    for frame in frames[2:7]:
        blue = (frame[:UPPER, :, 2] - frame[:UPPER, :, 0]) > 60
        places.append(np.argwhere(blue).mean(0)[axis])
    steps = np.diff(places) * sign
    assert (steps > 1).all() and steps.max() - steps.min() < 0.8
    assert visit.moves and not Visit(visit.shape, 2, 3, way).moves and not Visit(visit.shape, 2, 7).moves


def test_a_moment_near_the_border_of_two_stretches_is_in_doubt():
    made = clip(frames=30)
    found = [made.stretch(first, first + 2) for first in range(29)]
    assert [x for x in dict.fromkeys(found) if x] == list(STRETCHES)
    assert found[0] == "beginning" and found[14] == "middle" and found[28] == "end"
    assert found[9] is found[19] is None and found[6] == "beginning" and found[12] == "middle"

"""Films of a flying shape: straight within a clip, and back in the next."""

import numpy as np
import pytest

from laconic.tasks.scenes.flights import DIRECTIONS, FLIGHT_WORDS, Flight


def place(flight, clips):
    shape = flight.at(clips).shapes[0]
    return np.array([shape.x, shape.y])


@pytest.mark.parametrize("seed", range(12))
def test_a_shape_flies_straight_where_it_is_said_and_comes_back(seed):
    flight = Flight(seed, 32)
    start, end = place(flight, 0), place(flight, 1)
    way = (end - start) / 32
    towards = np.array(DIRECTIONS[flight.direction])
    assert 0.15 <= way @ towards <= 0.3 and abs(way @ towards[::-1]) <= 0.1 + 1e-9
    assert np.allclose(place(flight, 0.25), start + 0.25 * (end - start))
    assert np.allclose(place(flight, 1.25), place(flight, 0.75)) and np.allclose(place(flight, 2), start)
    assert all(0 <= x <= 32 for x in (*start, *end))


def test_frames_of_two_clips_share_a_border():
    flight = Flight(3, 16)
    frames = flight.frames(2, 4)
    assert frames.shape == (7, 16, 16, 3) and np.array_equal(frames[:4], flight.frames(1, 4))
    assert np.array_equal(frames[2], frames[4]) and not np.array_equal(frames[0], frames[3])


def test_what_is_said_is_of_its_words_and_may_leave_out_the_direction():
    said = [Flight(seed, 16).said() for seed in range(40)]
    assert {word for text in said for word in text.split()} <= set(FLIGHT_WORDS)
    assert {text.split()[-1] for text in said} == set(DIRECTIONS)
    assert Flight(3, 16).said(direction=False) == " ".join(Flight(3, 16).said().split()[:2])

"""Which frames are shown: by number where all last equally long, else by the time at which they are on screen."""

from fractions import Fraction
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from laconic.media.sampling import middles, on_screen, steady


@given(st.integers(1, 500), st.integers(1, 60))
def test_middles_of_equal_segments(total, count):
    """Frame k lasts from k to k + 1; the one shown contains the middle of its segment, by fractions."""
    chosen = middles(total, count)
    assert len(chosen) == min(total, count) and len(set(chosen)) == len(chosen)
    for i, frame in enumerate(chosen):
        middle = (Fraction(i) + Fraction(1, 2)) * Fraction(total, len(chosen))
        assert frame <= middle < frame + 1


def test_examples_of_sampling():
    assert middles(10, 1) == [5] and middles(8, 4) == [1, 3, 5, 7] and middles(3, 8) == [0, 1, 2] and middles(9, 2) == [2, 6]


@given(st.lists(st.integers(1, 400), min_size=2, max_size=40), st.integers(1, 30), st.integers(-50, 50))
def test_the_frame_on_screen_in_the_middle_of_each_segment(lengths, count, start):
    """Slow and straight: walk through the frames until the one that has not ended by then."""
    edges = [start, *accumulate(lengths, initial=start)][1:]
    edges = [start, *edges[1:]]
    if steady(edges) or len(lengths) <= count:
        assert on_screen(edges, count) == middles(len(lengths), count)
        return
    expected = []
    for i in range(count):
        middle = start + Fraction(2 * i + 1, 2 * count) * sum(lengths)
        frame = next(k for k in range(len(lengths)) if middle < edges[k + 1])
        expected += [frame] if frame not in expected else []
    assert on_screen(edges, count) == expected


def test_a_long_frame_beside_short_ones():
    assert on_screen([0, 5000, 5100, 5200], 1) == [0]
    assert on_screen([0, 100, 200, 5200], 2) == [2] and on_screen([0, 100, 5100, 5200], 2) == [1]
    assert on_screen([0, 1000, 1000, 1000, 2000, 2040], 2) == [0, 3], "what lasts no time is never on screen"


def test_times_that_a_container_rounded_are_steady():
    """30 frames a second in milliseconds: 0, 33, 67, 100 ... are sampled by number."""
    edges = [round(i * 1000 / 30) for i in range(301)]
    assert steady(edges) and all(on_screen(edges, count) == middles(300, count) for count in (1, 2, 3, 7, 10, 64))


def test_a_clip_in_units_of_frames_is_steady_only_if_it_is():
    assert steady([0, 1, 2, 3, 4, 5]) and not steady([0, 1, 2, 3, 6, 9])
    assert on_screen([0, 1, 2, 3, 6, 9], 3) == [1, 3, 4]

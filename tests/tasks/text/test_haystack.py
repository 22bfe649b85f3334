import random

import pytest

from laconic.tasks.text.haystack import haystack, plant

LINES = ("one two three", "four five", "six seven eight nine", "ten")


def words(text: str) -> int:
    """Words of a text stand in for its tokens."""
    return len(text.split())


@pytest.mark.parametrize("room", [0, 2, 5, 9, 30])
def test_a_haystack_fills_the_room_with_lines_that_follow_one_another(room):
    for seed in range(20):
        hay = haystack(random.Random(seed), LINES, room, words)
        assert sum(map(words, hay)) <= room
        if room > 1:
            assert sum(map(words, hay)) >= room - 1
            start = next(i for i, line in enumerate(LINES) if line.startswith(hay[0]))
            assert all(LINES[(start + i) % 4].startswith(line) for i, line in enumerate(hay))
            assert all(LINES[(start + i) % 4] == line for i, line in enumerate(hay[:-1])), "only the last line is cut"


def test_needles_are_planted_in_their_order_between_whole_lines():
    places = set()
    for seed in range(100):
        planted = plant(random.Random(seed), list(LINES), ["a", "b"])
        assert [line for line in planted if line in LINES] == list(LINES)
        assert [line for line in planted if line not in LINES] == ["a", "b"]
        places.add(planted.index("a"))
    assert places == set(range(5))

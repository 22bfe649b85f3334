"""SIRI's cap by step, against the formulas written out."""

import math

import pytest

from laconic.methods.reasoning.siri.schedule import cap_at, phase_after

HIGH, LOW, CYCLE = 16384, 8192, 640


def test_1_values_of_the_cosine():
    caps = [cap_at(t, CYCLE, LOW, HIGH) for t in (0, 80, 160, 240, 320, 480, 640, 960)]
    assert caps == [16384, round(12288 + 4096 * math.cos(math.pi / 4)), 12288, 9392, 8192, 12288, 16384, 8192]


@pytest.mark.parametrize("shape", ["cosine", "stair", "stair-cosine"])
def test_1_every_schedule_repeats_and_stays_between_its_caps(shape):
    caps = [cap_at(t, CYCLE, LOW, HIGH, shape) for t in range(2 * CYCLE)]
    assert caps[:CYCLE] == caps[CYCLE:]
    assert min(caps) == LOW and max(caps) == HIGH


def test_1_the_stair_is_low_while_it_compresses():
    caps = [cap_at(t, 8, 10, 20, "stair") for t in range(8)]
    assert caps == [10] * 4 + [20] * 4


def test_1_the_stair_cosine_joins_at_all_four_places():
    cycle = 80_000  # so fine that a step changes the cap by less than a token
    caps = [cap_at(t, cycle, LOW, HIGH, "stair-cosine") for t in range(cycle)]
    assert max(abs(a - b) for a, b in zip(caps, caps[1:] + caps[:1], strict=True)) <= 1
    assert caps[cycle // 16] == HIGH and caps[cycle // 2] == LOW and caps[cycle // 4] == (HIGH + LOW) / 2


def test_8_what_a_training_ends_with():
    assert [phase_after(n, 640) for n in (1600, 1920, 320, 640, 100)] == ["low", "high", "low", "high", "between"]


def test_bad_schedules_are_refused():
    with pytest.raises(ValueError, match="shape='saw': choose one of cosine, stair, stair-cosine"):
        cap_at(0, 10, 1, 2, "saw")
    with pytest.raises(ValueError, match="low=3 at most high=2"):
        cap_at(0, 10, 3, 2)

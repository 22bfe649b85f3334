"""Where a curve collapses, and a curve whose last point has no weights left to speak of."""

import pytest
from helpers.session_tools import assert_same_state, state

import laconic
from laconic.engine.engine import Engine
from laconic.engine.solving import Solved
from laconic.methods.lens.reasoning_meets_compression import collapse as module
from laconic.methods.lens.reasoning_meets_compression.collapse import collapse, curve, pruned
from laconic.tasks import find_task


def test_it_is_the_first_level_below_half_of_the_first():
    assert collapse([0, 0.3, 0.5, 0.7], [0.9, 0.5, 0.44, 0.6]) == 0.5
    assert collapse([0, 0.3], [0.9, 0.45]) is None


def test_all_edits_see_the_same_problems_and_leave_the_model_alone():
    model, tokenizer = laconic.load("testbed/reasoner")
    before, task = state(model), find_task("arithmetic_terse")
    points = curve(Engine(model, tokenizer), [pruned("magnitude", x) for x in (0, 0.9)], task, task.numbers(0, 6))
    assert points[0]["right"] > points[1]["right"] == 0 and points[0]["n"] == 6 and points[1]["high"] > 0
    parts = points[0]["quarters"]
    assert len(parts) == 4 and sum(parts) / 4 == pytest.approx(points[0]["right"], abs=0.2)
    assert_same_state(model, before)


def test_quarters_begin_with_few_steps_and_low_numbers(monkeypatch):
    solved = [Solved(number, steps, steps == 2, None) for number, steps in [(1, 8), (2, 2), (3, 2), (4, 5)]]
    monkeypatch.setattr(module, "solve", lambda *given: solved)
    model, tokenizer = laconic.load("testbed/reasoner")
    (point,) = curve(Engine(model, tokenizer), [pruned("magnitude", 0)], None, [1, 2, 3, 4])
    assert point["quarters"] == [1, 1, 0, 0] and point["right"] == 0.5


def test_only_methods_that_prune_have_levels():
    with pytest.raises(ValueError, match="snapkv changes no weights"):
        pruned("snapkv", 0.5)

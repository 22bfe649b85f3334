"""Problems: every step follows from the one before, and the answer from the last."""

import random
import re

import pytest

from laconic.tasks.reasoning.problems import CHANGES, KINDS, STEPS, TOLD


def drawn(kind, steps=6, seed=0):
    return KINDS[kind](random.Random(seed), steps)


def evaluated(written):
    """Left and right side of a step, calculated anew."""
    left, right = written.split("=")
    return eval(left, {}) % 100, int(right)


@pytest.mark.parametrize("kind", ["arithmetic", "story"])
@pytest.mark.parametrize("seed", range(20))
def test_a_calculation_is_right_and_its_steps_join(kind, seed):
    problem = drawn(kind, seed=seed)
    state = re.search(r"\d+", problem.question)[0]
    for step in problem.steps:
        left, right = evaluated(step.written)
        assert left == right and re.match(r"\d+", step.written)[0] == state
        assert evaluated(step.mistaken)[0] == evaluated(step.mistaken)[1]  # a false start is right in itself
        assert re.match(r"\d+", step.mistaken)[0] == state
        assert int(re.search(r"[-+*](\d+)=", step.written)[1]) in range(1, 10)
        state = str(right)
    assert problem.answer == state


@pytest.mark.parametrize("seed", range(20))
def test_a_list_is_changed_as_it_is_named(seed):
    problem = drawn("list", seed=seed)
    state, named = re.match(r"List (\d{4}): (.*)\. Result\?", problem.question).groups()
    for name, step in zip(named.split(", "), problem.steps, strict=True):
        other, wrong = step.mistaken.split("=")
        assert other != name and wrong == CHANGES[other](state)
        state = CHANGES[name](state)
        assert step.written == f"{name}={state}"
    assert problem.answer == state


def test_lists_are_changed_as_the_names_say():
    assert [CHANGES[name]("3190") for name in ("reverse", "rotate", "swap", "raise")] == ["0913", "1903", "1390", "4201"]


def test_a_question_has_a_part_for_every_step():
    for steps in STEPS:
        assert drawn("arithmetic", steps).question.count(",") == steps - 1
        told = drawn("story", steps).question
        assert sum(told.count(f" {way.split()[0]} ") for ways in TOLD.values() for way in ways) == steps
        assert len(drawn("list", steps).steps) == steps


def test_equal_seeds_give_equal_problems():
    assert drawn("story", seed=4) == drawn("story", seed=4) != drawn("story", seed=5)

"""The shipped model that thinks: it needs its chain of thought, and methods for thinking act on it by its name."""

import pytest

import laconic
from laconic.engine.engine import Engine, Request
from laconic.engine.solving import solve
from laconic.specs import create_methods
from laconic.tasks import find_task


@pytest.fixture(scope="module")
def engine():
    return Engine(*laconic.load("testbed/reasoner"))


def right(engine, task, method=None, samples=20):
    task = find_task(task)
    request = Request(methods=create_methods([method] if method else []))
    return sum(x.right for x in solve(engine, task, task.numbers(0, samples), request, samples)) / samples


@pytest.mark.parametrize("task", ["arithmetic_terse", "story_terse", "list_terse"])
def test_it_answers_after_thinking_and_not_at_once(engine, task):
    assert right(engine, task) >= 0.9
    assert right(engine, task, "no_thought") <= 0.2


def test_thinking_that_is_cut_short_costs_answers(engine):
    assert right(engine, "arithmetic_terse", "truncate_thought:cap=16") < 0.6


def test_the_panel_counts_its_thinking(engine):
    asked = Request(question="Start with 3: +4, *2, -5. Result? Think briefly.", methods=[])
    assert engine.answer(asked).text.strip().endswith("9")

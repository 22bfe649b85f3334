"""What stands on a leaderboard of media."""

from helpers.image_tools import made_up

from laconic.bench.summary import summarise
from tools.pages.board import complete


def test_a_budget_that_some_kinds_of_question_do_not_reach_has_no_line():
    kinds = {("none", 1.0): ("colour", "count"), ("evs", 0.5): ("colour", "count"), ("evs", 0.1): ("colour",)}
    rows = [made_up(m, k, n, 1.0, task=task) for (m, k), tasks in kinds.items() for task in tasks for n in range(2)]
    assert [(line.method, line.keep) for line in complete(summarise(rows))] == [("none", 1.0), ("evs", 0.5)]

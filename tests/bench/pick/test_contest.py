"""Successive halving with answers that are made up."""

import pytest

from laconic.bench.pick.contest import ROUND, Contest
from laconic.bench.pick.examiner import Found
from laconic.errors import BudgetError

METHODS = ("a", "b", "c", "d", "e")
FOREVER = lambda: 1e9  # noqa: E731


def found(right: int, of: int = 4, seconds: float = 1.0, kv_bytes: int = 10) -> Found:
    return Found({i: i < right for i in range(of)}, kv_bytes, 100, seconds)


def scores(unit, method, keep):
    return found({"a": 1, "b": 4, "c": 0, "d": 3, "e": 2}[method])


def test_the_worse_half_goes_after_each_round_and_two_stay():
    contest, seen = Contest(METHODS, [0.5]), []
    contest.run(range(12), lambda unit, m, k: seen.append((unit, m)) or scores(unit, m, k), FOREVER)
    first = ROUND // 4
    by_unit = [[m for u, m in seen if u == unit] for unit in range(12)]
    assert by_unit[:first] == [list(METHODS)] * first
    assert by_unit[first : 3 * first] == [["b", "d", "e"]] * 2 * first  # twice as long
    assert by_unit[3 * first :] == [["b", "d"]] * 3
    assert contest.alive[0.5] == ["b", "d"] == contest.ranked(0.5)
    assert contest.tallies["b", 0.5].share == 1 and len(contest.tallies["b", 0.5].same) == 48
    assert len(contest.tallies["a", 0.5].same) == ROUND and contest.tallies["a", 0.5].share == 0.25


def test_budgets_are_contests_of_their_own():
    contest = Contest(METHODS, [0.5, 0.1])
    contest.run(range(9), lambda u, m, k: scores(u, m, k) if k == 0.5 else found(4 if m in "ce" else 0), FOREVER)
    assert contest.ranked(0.5) == ["b", "d"] and contest.ranked(0.1) == ["c", "e"]


def test_of_equals_the_one_that_stores_less_is_first():
    """However long finding out took: most of that is reading, which the first method does for all."""
    contest = Contest(("large", "small"), [0.5])
    answers = {"large": found(2, seconds=1.0, kv_bytes=12), "small": found(2, seconds=5.0, kv_bytes=11)}
    contest.run(range(1), lambda u, m, k: answers[m], FOREVER)
    assert contest.ranked(0.5) == ["small", "large"]
    assert contest.tallies["large", 0.5].kv_share == 0.12


def refusing(at):
    """Answers, but for the budget `at`, which every method refuses."""

    def ask(unit, method, keep):
        if keep == at:
            raise BudgetError("too small")
        return scores(unit, method, keep)

    return ask


def test_a_budget_that_all_refuse_holds_up_no_other():
    contest = Contest(METHODS, [0.5, 0.01])
    contest.run(range(9), refusing(0.01), FOREVER)
    assert contest.alive == {0.5: ["b", "d"], 0.01: []} and len(contest.refused) == len(METHODS)


def test_where_no_method_is_left_no_more_is_read():
    opened = []
    Contest(METHODS, [0.5]).run((opened.append(unit) or unit for unit in range(9)), refusing(0.5), FOREVER)
    assert opened == [0]


def test_when_time_is_up_only_whole_units_count():
    clock = [20.0]

    def ask(unit, method, keep):
        clock[0] -= 1
        return scores(unit, method, keep)

    contest = Contest(METHODS, [0.5])
    contest.run(range(9), ask, lambda: clock[0])
    asked = {method: len(tally.same) for (method, _), tally in contest.tallies.items()}
    assert asked == dict.fromkeys("bde", 16) | dict.fromkeys("ac", 12)  # units of five, then of three
    assert clock[0] >= 1.0  # a method that would not be done in time is not begun


def spending(clock, seconds):
    """Answers four questions; each method takes its own seconds at the first budget, and a tenth of them at others."""

    def ask(unit, method, keep):
        took = seconds[method] * (1.0 if keep == 0.25 else 0.1)
        clock[0] -= took
        return found(2, seconds=took)

    return ask


def test_methods_that_the_first_unit_has_no_time_for_are_left_out():
    """Eight questions are two units: the first one may take a half of the half that it has."""
    seconds, clock = {"a": 5.0, "b": 10.0, "c": 12.0, "d": 5.0, "e": 5.0}, [100.0]
    contest = Contest(METHODS, [0.25, 0.1])
    contest.run(range(9), spending(clock, seconds), lambda: clock[0])
    assert {method for method, _ in contest.refused} == {"d", "e"} and len(contest.refused) == 4
    assert "no time to try it" in contest.refused["d", 0.25] and set(contest.alive[0.1]) <= set("abc")
    assert len(contest.tallies["c", 0.25].same) >= 8 and clock[0] >= 0
    assert not Contest(METHODS, [0.25]).run(range(9), spending([1e9], seconds), FOREVER)


@pytest.mark.parametrize(
    ("seconds", "order"),
    [(60.0, [(0, 0.25), (0, 0.1), (1, 0.25)]), (45.0, [(0, 0.25), (1, 0.25), (1, 0.1)])],
)
def test_other_budgets_wait_until_the_first_has_its_verdict(seconds, order):
    """Where time is short: two methods take 20 seconds a unit, and eight questions are two units."""
    clock, asked = [seconds], []
    ask = spending(clock, {"a": 10.0, "b": 10.0})
    contest = Contest(("a", "b"), [0.25, 0.1])
    contest.run(range(2), lambda u, m, k: asked.append((u, k)) or ask(u, m, k), lambda: clock[0])
    assert list(dict.fromkeys(asked))[:3] == order
    assert len(contest.tallies["b", 0.25].same) == 8


def test_a_method_that_refuses_is_out_and_its_reason_kept():
    def ask(unit, method, keep):
        if method == "b":
            raise BudgetError("too small")
        return scores(unit, method, keep)

    contest = Contest(METHODS, [0.5])
    contest.run(range(2), ask, FOREVER)
    assert contest.refused == {("b", 0.5): "too small"} and contest.ranked(0.5) == ["d", "e", "a", "c"]


def test_each_is_told_before_it_is_asked():
    told = []
    Contest(("a", "b"), [0.5, 0.1]).run([0], scores, FOREVER, lambda m, k: told.append((m, k)))
    assert told == [("a", 0.5), ("b", 0.5), ("a", 0.1), ("b", 0.1)]


@pytest.mark.parametrize("units", [[], [0]])
def test_nothing_asked_is_a_share_of_nothing(units):
    contest = Contest(("a",), [0.5])
    contest.run(units, scores, lambda: 0.0)
    assert contest.tallies["a", 0.5].share == 0 and contest.ranked(0.5) == ["a"]

"""Verdicts: who is best, who may be as good, and the file they are kept in."""

import json
from dataclasses import replace

import pytest

from laconic.bench.pick.contest import Contest
from laconic.bench.pick.examiner import Found
from laconic.bench.pick.verdict import Pick, PickError, place, verdicts
from laconic.bench.statistics import wilson


def contest(answers: dict[str, str]) -> Contest:
    """`answers`: method -> a 1 or 0 for each question."""
    made = Contest(tuple(answers), [0.25])
    for method, marks in answers.items():
        tally = made.tallies[method, 0.25]
        tally.same = {(0, i): mark == "1" for i, mark in enumerate(marks)}
        tally.found = [Found({}, 20, 100, 2.0), Found({}, 40, 200, 4.0), Found({}, 30, 100, 9.0)]
    return made


def verdict(answers):
    (found,) = verdicts(contest(answers), "later")
    return found


def test_the_best_one_with_its_interval_and_costs():
    found = verdict({"a": "1" * 9 + "0", "b": "0" * 10})
    assert (found.method, found.mode, found.keep, found.questions) == ("a", "later", 0.25, 10)
    interval = wilson(9, 10)
    assert (found.share, found.low, found.high) == (interval.mean, interval.low, interval.high) and found.share == 0.9
    assert (found.kv_share, found.read_seconds, found.token_seconds) == (90 / 400, None, None)


def test_five_differing_questions_may_be_chance_and_six_are_not():
    assert verdict({"a": "1" * 10, "b": "1" * 5 + "0" * 5}).rivals == {"b": 0.5}
    assert verdict({"a": "1" * 10, "b": "1" * 4 + "0" * 6}).rivals == {}


def test_only_questions_that_both_were_asked_are_compared():
    long, short = "1" * 10 + "0" * 4, "1" * 3 + "0" * 3
    assert verdict({"a": long, "b": short}).rivals == {"b": 0.5}  # three differ
    assert set(verdict({"a": "1" * 12, "b": "1" * 12}).rivals) == {"b"}  # none differ


def test_where_nothing_was_asked_there_is_no_verdict():
    assert verdicts(Contest(("a",), [0.5]), "later") == []
    assert verdicts(contest({"a": "1" * 7, "b": "1" * 7}), "later") == []  # seven say nothing
    assert verdict({"a": "1" * 8}).questions == 8


def test_a_control_alone_is_no_advice():
    asked = {"random": "1" * 9, "kvzip": ""}
    assert verdicts(contest(asked), "later") == []
    assert verdicts(contest({"random": "1" * 9}), "later")[0].method == "random"  # nothing else was wanted
    assert verdicts(contest({**asked, "kvzip": "0" * 9}), "later")[0].method == "random"


@pytest.fixture
def pick():
    one = verdict({"a": "1" * 10})
    budgets = [replace(one, keep=0.5, share=1.0), replace(one, keep=0.25, share=0.95), replace(one, keep=0.1, share=0.5)]
    later = [*budgets, replace(one, mode="in view", keep=0.5, share=0.6)]
    return Pick("m", "0123", "kvturns", 3.0, {"asked": 12}, tuple(later), {"laconic": "0"}, {"cpu": "x"})


def test_a_file_holds_all_of_it(pick, tmp_path):
    file = tmp_path / "new" / "pick.json"
    pick.save(file)
    assert Pick.load(file) == pick and [path.name for path in file.parent.iterdir()] == ["pick.json"]
    file.write_text(file.read_text().replace('"keep"', '"share_kept"'))
    with pytest.raises(PickError, match=r"pick.json holds no verdicts .*run laconic pick again"):
        Pick.load(file)
    file.write_text(json.dumps({"schema": 0}))
    with pytest.raises(PickError, match="another version"):
        Pick.load(file)
    with pytest.raises(PickError, match="holds no verdicts"):
        Pick.load(tmp_path / "none.json")


def test_without_a_budget_the_smallest_that_keeps_95_percent(pick):
    assert pick.choose("later").keep == 0.25
    assert pick.choose("in view").keep == 0.5  # none does: the largest that was tried


@pytest.mark.parametrize(("keep", "closest"), [(0.9, 0.5), (0.36, 0.5), (0.35, 0.25), (0.15, 0.1), (0.01, 0.1)])
def test_with_a_budget_the_closest_by_ratio(pick, keep, closest):
    assert pick.choose("later", keep).keep == closest


def test_a_mode_without_verdicts(pick):
    with pytest.raises(PickError, match="found out nothing about questions in view"):
        replace(pick, verdicts=pick.verdicts[:3]).choose("in view")


def test_each_model_has_a_file_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path))
    assert place("0123") == tmp_path / "picks" / "0123.json"

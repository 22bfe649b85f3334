"""What the page of the lens says of its stored results: read from them, so that new ones that say otherwise fail here."""

from tools.pages.parts import results

THINKS, KNOWS = results("reasoning_lens"), results("reasoning_lens_knowing")


def test_the_best_two_percent_beat_every_draw():
    worth = THINKS["protection"]
    assert worth["as it is"] < worth["top"] < min(worth["random"]) and len(worth["random"]) == 8


def test_short_answers_are_more_often_right_and_none_was_cut():
    found = THINKS["lengths"]
    assert found["cut"] == 0 and found["tokens"]["right"] < found["tokens"]["wrong"]
    assert found["short"]["right"] > found["long"]["right"]
    halves = sum(found[half]["answers"] * found[half]["right"] for half in ("short", "long"))
    assert abs(halves / found["answers"] - found["right"]) < 1e-9


def test_one_step_outlives_one_fact_and_many_steps_do_not():
    """As a whole neither is lost first; problems of few steps outlive all facts, and seldom seen facts go before others."""
    problems, facts = KNOWS["collapse"]["arithmetic_terse"], KNOWS["collapse"]["facts"]
    assert problems["at"] == facts["at"] == 0.6
    for level in ("0.5", "0.6"):
        solved, known = problems["levels"][level]["quarters"], facts["levels"][level]["quarters"]
        assert solved[0] > max(known) and solved[3] < min(known) and known[0] > known[3]

"""Chains of thought in two styles, and the answer in what was written."""

import random
from itertools import pairwise

import pytest

from laconic.tasks.reasoning.chains import MARK, answer_in, chain
from laconic.tasks.reasoning.problems import Problem, Step

PROBLEM = Problem("?", (Step("3+4=7", "3*2=6"), Step("7*2=14", "7-1=6")), "14")


def test_a_terse_chain_has_every_step_once():
    assert chain(PROBLEM, "terse", random.Random(0)) == "3+4=7;7*2=14;"


def test_a_verbose_chain_checks_and_strays_and_ends_where_a_terse_one_does():
    seen = set()
    for seed in range(200):
        pieces = chain(PROBLEM, "verbose", random.Random(seed)).split(";")[:-1]
        kept = [p.removeprefix("wait ") for p in pieces if not p.startswith("check") and p not in ("3*2=6", "7-1=6")]
        assert kept == ["3+4=7", "7*2=14"]
        for before, piece in pairwise(pieces):
            if piece.startswith("check"):
                assert before.split()[-1] == piece.split()[-1]  # what is checked has just been written
            assert piece.startswith("wait") == (before in ("3*2=6", "7-1=6"))
        seen |= {piece.split()[0] for piece in pieces}
    assert {"wait", "check", "3*2=6"} <= seen


def test_no_chain_where_the_answer_is_asked_for_directly():
    assert chain(PROBLEM, "direct", random.Random(0)) == ""
    with pytest.raises(ValueError, match="style='loud': choose one of terse, verbose, direct"):
        chain(PROBLEM, "loud", random.Random(0))


@pytest.mark.parametrize(
    ("text", "answer"), [("3+4=7;###7", "7"), (f"{MARK} 1 4", "14"), ("14", None), ("", None), ("###1###2", "1###2")]
)
def test_the_answer_is_what_follows_the_first_mark(text, answer):
    assert answer_in(text) == answer

"""Training of the reasoner: drills beside problems, the same after resuming."""

import random

import torch

from laconic.fit.chains import IGNORED, Solutions
from laconic.testbed.reasoner_model import build_tokenizer
from laconic.testbed.train_reasoner import DRILLED, drills, mixed, styles

TOKENIZER = build_tokenizer()
RULES = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}


def arithmetic(written):
    sign = next(x for x in written if x in RULES)
    return RULES[sign](*map(int, written.split(sign))) % 100


def test_a_drill_is_learned_at_its_results_alone():
    for ids, labels in drills(TOKENIZER, random.Random(0), 5):
        facts = TOKENIZER.decode(ids).split(";")[:-1]
        assert len(facts) == DRILLED
        for fact in facts:
            left, result = fact.split("=")
            assert arithmetic(left) == int(result)
        wanted = "".join(f"{fact.split('=')[1]};" for fact in facts)
        assert TOKENIZER.decode(labels[labels != IGNORED]) == wanted
        assert ((labels == IGNORED) | (labels == ids)).all()


def test_a_step_is_the_same_again_and_has_fewer_drills_later():
    solutions = Solutions(TOKENIZER, styles(0.3))
    first, again = (mixed(solutions, 0, 3, 100, 20, (0.5, 0.1)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    begin = TOKENIZER.bos_token_id
    problems = [int((mixed(solutions, 0, step, 100, 20, (0.5, 0.1))[0][:, 0] == begin).sum()) for step in (0, 50, 99)]
    assert problems == [10, 14, 18]

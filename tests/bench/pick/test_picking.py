"""Both contests on one model: in time, on documents that it knows something about."""

import pytest
from helpers.bench_tools import tiny, written

from laconic.bench.pick import picking
from laconic.bench.pick.picking import Picking, PickingError, plan
from laconic.bench.specs import check_spec
from laconic.engine.engine import Engine
from laconic.tasks import Sample, Turn

CONTEXTS = ["The code for falcon is 4815263. " * 6, "The code for heron is 1623421. " * 7]


@pytest.fixture(scope="module")
def engine():
    return Engine(*tiny())


@pytest.fixture(scope="module")
def samples(engine):
    made = []
    for context in CONTEXTS:
        for question in "abcde":
            made.append(Sample("own", len(made), (Turn(question, (written(engine, context, question),)),), context))
    return made


def test_both_modes_have_verdicts_on_all_questions(engine, samples):
    told = []
    made = Picking(engine, samples, "tiny", "mine", ["random", "knorm"], [0.5, 1.0])
    found = made.run(10, lambda *args: told.append(args))
    assert [(one.mode, one.keep) for one in found.verdicts] == [(m, k) for m in ("later", "in view") for k in (1.0, 0.5)]
    assert {one.questions for one in found.verdicts} == {10} and len(made.documents) == 2
    assert all(one.share == 1 for one in found.verdicts if one.keep == 1.0)
    assert found.uncompressed["asked"] == found.uncompressed["answered"] == 10 and found.uncompressed["documents"] == 2
    asked = [one for one in told if one[1] != "none"]
    assert len(asked) == 2 * 2 * 2 + 10 * 2 * 2 and asked[0] == ("later", "random", 0.5, 10)
    assert len(found.fingerprint) == 12 and found.minutes > 0
    assert all(one.read_seconds > 0 and one.token_seconds > 0 for one in found.verdicts)


def test_too_little_known_is_refused(engine, samples):
    unknown = [Sample("own", 0, (Turn("?", ("no such answer",)),), CONTEXTS[0])]
    with pytest.raises(PickingError, match="tiny answers 5 of 6 questions"):
        Picking(engine, [*samples[:5], *unknown], "tiny", "mine", ["random"], [0.5]).run(10)
    with pytest.raises(PickingError, match="minutes are too few for 8 questions under 1 methods"):
        Picking(engine, samples, "tiny", "mine", ["random"], [0.5]).run(0.0001)
    asked = []
    blank = [Sample("own", 0, unknown[0].turns, "Nothing is known about this."), *samples]
    Picking(engine, blank, "tiny", "mine", ["random"], [0.5]).run(10, lambda *args: asked.append(args))
    assert len([one for one in asked if one[:2] == ("later", "random")]) == 2  # not about the first document


def test_the_plan_can_be_built():
    assert len(plan()["methods"]) >= 6
    for method in plan()["methods"]:
        for keep in plan()["keeps"]:
            check_spec(method, keep)


def test_later_questions_have_their_share_of_the_time(engine, samples, monkeypatch):
    clock, ends = [0.0], {}

    def monotonic():
        clock[0] += 1.0  # every look at the clock takes a second
        return clock[0]

    monkeypatch.setattr(picking.time, "monotonic", monotonic)
    made = Picking(engine, samples, "tiny", "mine", ["random"], [0.5])
    made.run(1, lambda mode, *_: ends.update({mode: clock[0]}))
    assert ends["later"] <= 60 * picking.LATER + 1 and ends["in view"] <= 61

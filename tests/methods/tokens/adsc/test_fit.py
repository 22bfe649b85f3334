"""Tuning with bottlenecks as a fit."""

import pytest
from helpers.visual_fit import processor

from laconic.fit import Trainer
from laconic.fit.settings import parse
from laconic.methods.tokens.adsc.fit import ADSCFit


@pytest.fixture(scope="module")
def reader():
    return processor()


def test_it_is_tuned_with_what_the_artifact_says(vlm, reader):
    fit = parse(ADSCFit, {"layers": "2,4", "factor": "4", "rows": "2", "steps": "1"})
    made = Trainer(fit, vlm, reader).run()
    assert made.data == {"layers": [2, 4], "factor": 4, "mode": "last", "grid": False}
    with fit.compressed(fit.tuned.lm, 0) as session:
        fit.tuned.lm(**fit.batch(0)[1])
    assert session.stats.visual == {i: 144 // 4 ** ((i >= 2) + (i >= 4)) for i in range(8)}


def test_layers_of_the_paper_s_depth(vlm, reader):
    fit = ADSCFit()
    fit.build(vlm, reader)
    assert fit.facts()["layers"] == [2, 4, 5]


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="must be ascending"):
        ADSCFit(layers=(4, 2))
    with pytest.raises(ValueError, match="mode="):
        ADSCFit(mode="middle")

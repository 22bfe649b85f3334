"""Tuning by stages as a fit."""

import pytest
from helpers.visual_fit import processor

from laconic.fit import Trainer
from laconic.fit.settings import parse
from laconic.methods.tokens.llavolta.fit import SCHEMES, LLaVoltaFit
from laconic.methods.tokens.llavolta.schedule import FOUR_STAGES


@pytest.fixture(scope="module")
def reader():
    return processor()


def test_stages_follow_the_steps_and_the_last_one_is_in_the_artifact(vlm, reader):
    lines = []
    fit = LLaVoltaFit(rows=2, steps=4, log_every=1)
    trainer = Trainer(fit, vlm, reader, log=lines.append)
    made = trainer.run()
    assert [line.split("stride ")[1][0] for line in lines] == ["8", "2", "2", "1"]
    assert made.data == {"scheme": "four", "layer": None, "stride": 1} and made.kind == "trained"
    assert "decoder.layers.7.mlp.up_proj.weight" in made.tensors
    for step, stride in ((0, 8), (1, 2), (3, None)):
        with fit.compressed(fit.tuned.lm, step) as session:
            assert (session and session.methods[0].stride) == stride


def test_layers_are_scaled_to_the_depth(vlm, reader):
    for scheme, layer in (("heavy", 1), ("light", 4)):
        fit = LLaVoltaFit(scheme=scheme)
        fit.build(vlm, reader)
        assert fit.facts() == {"scheme": scheme, "layer": layer, "stride": 8}
        with fit.compressed(fit.tuned.lm, 0) as session:
            assert (session.methods[0].layer, session.methods[0].stride) == (layer, 8)


def test_settings():
    assert parse(LLaVoltaFit, {"scheme": "none"}).schedule.stages[0].stride == 1 and SCHEMES["four"] is FOUR_STAGES
    with pytest.raises(ValueError, match="choose one of four, heavy, light, none"):
        LLaVoltaFit(scheme="three")

"""Training of CrossLMM."""

import random

import pytest
import torch
from helpers.visual_fit import check_only_the_network_learns, check_same_as_session, made, network_of, processor

from laconic.fit import Trainer
from laconic.methods.tokens.crosslmm.fit import GATES, CrossLMMFit
from laconic.methods.tokens.crosslmm.method import CrossLMM

TINY = {"images": 2, "questions": 2, "sides": (2,), "alone": 0.4}


@pytest.fixture(scope="module")
def reader():
    return processor()


@pytest.mark.parametrize("parts", [{}, {"visual": False}, {"text": False}, {"visual": False, "text": False}])
def test_training_reads_what_a_session_reads(vlm, reader, tmp_path, parts):
    fit = CrossLMMFit(**TINY, **parts)
    network_of(fit, vlm, reader)
    check_same_as_session(fit, vlm, reader, CrossLMM(artifact=made(fit, vlm, tmp_path / "net.safetensors")))


def test_only_the_network_learns_and_a_resumed_training_is_the_same(vlm, reader, tmp_path, monkeypatch):
    check_only_the_network_learns(CrossLMMFit, TINY, vlm, reader, tmp_path, monkeypatch)


def test_visual_rows_look_alone_at_first(vlm, reader):
    fit = CrossLMMFit(**TINY, steps=2)
    trained = Trainer(fit, vlm, reader).run().tensors
    assert trained["inserts.3.text_gate"].abs() > 0  # the second step
    first = CrossLMMFit(**TINY | {"alone": 0.9}, steps=1, warmup=0.0)
    tensors = Trainer(first, vlm, reader).run().tensors
    assert not tensors["inserts.3.text_gate"].any() and tensors["inserts.3.visual_gate"].abs() > 0
    assert float(tensors["inserts.3.visual_gate"].abs()) == pytest.approx(GATES * first.lr, rel=0.01)


def test_every_step_draws_one_size(vlm, reader):
    fit = CrossLMMFit(**TINY | {"sides": (1, 2, 4)})
    network_of(fit, vlm, reader)
    asked = fit.asked(0)
    with torch.no_grad():
        lengths = {fit.logits(asked, random.Random(step)).shape[1] for step in range(12)}
    assert {n - min(lengths) for n in lengths} == {0, 3, 15}


def test_settings_that_make_no_sense(vlm, reader):
    with pytest.raises(ValueError, match=r"sides=\(13,\): this model's views have 12 tokens a side"):
        CrossLMMFit(sides=(13,)).build(vlm, reader)
    with pytest.raises(ValueError, match=r"first=8: this model has layers 0\.\.7"):
        CrossLMMFit(first=8).build(vlm, reader)
    for wrong in ({"alone": 1.0}, {"sides": (0,)}, {"every": 0}):
        with pytest.raises(ValueError, match="must be"):
            CrossLMMFit(**wrong)

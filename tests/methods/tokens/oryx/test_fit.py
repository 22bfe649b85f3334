"""Training of Oryx."""

import random

import pytest
from helpers.visual_fit import check_only_the_network_learns, check_same_as_session, made, network_of, processor

from laconic.methods.tokens.oryx.fit import OryxFit
from laconic.methods.tokens.oryx.method import Oryx

TINY = {"images": 2, "questions": 2, "regions": (4,), "inner": 8}


@pytest.fixture(scope="module")
def reader():
    return processor()


def test_training_reads_what_a_session_reads(vlm, reader, tmp_path):
    fit = OryxFit(**TINY)
    network_of(fit, vlm, reader)
    check_same_as_session(fit, vlm, reader, Oryx(artifact=made(fit, vlm, tmp_path / "net.safetensors")))


def test_every_step_draws_one_ratio(vlm, reader, monkeypatch):
    fit, drawn = OryxFit(**TINY | {"regions": (1, 2, 4)}), []
    network_of(fit, vlm, reader)
    monkeypatch.setattr(fit.net, "forward", lambda patches, side: drawn.append(side) or patches.new_zeros(2, 9, 128))
    asked = fit.asked(0)
    for step in range(12):
        fit.logits(asked, random.Random(step))
    assert set(drawn) == {1, 2, 4}


def test_only_the_network_learns_and_a_resumed_training_is_the_same(vlm, reader, tmp_path, monkeypatch):
    check_only_the_network_learns(OryxFit, TINY, vlm, reader, tmp_path, monkeypatch)


def test_settings_that_make_no_sense(vlm, reader):
    with pytest.raises(ValueError, match=r"regions=\(2, 5\): 5 does not divide the 12 patches"):
        OryxFit(regions=(2, 5)).build(vlm, reader)

"""Training of PVC."""

import random

import pytest
import torch
from helpers.streaming_tools import check_same_as_session, stirred, video_testbed
from helpers.visual_fit import check_only_the_network_learns, made

from laconic.methods.tokens.pvc.fit import PVCFit
from laconic.methods.tokens.pvc.method import PVC

TINY = {"images": 2, "questions": 2, "frames": (8,)}


@pytest.fixture(scope="module")
def host():
    return video_testbed()


def built(host, **settings):
    fit = PVCFit(**TINY | settings)
    torch.manual_seed(0)
    stirred(fit.build(*host))
    return fit


def test_training_reads_what_a_session_reads(host, tmp_path):
    fit = built(host, stills=0.0)
    check_same_as_session(fit, *host, PVC(artifact=made(fit, host[0], tmp_path / "net.safetensors")))


def test_stills_are_one_frame_with_its_sign(host):
    fit = built(host, stills=1.0, repeats=(3,))
    for shown in fit.drawn(random.Random(0)):
        assert len(shown.frames) == 3 and all((frame == shown.frames[0]).all() for frame in shown.frames)
        assert [question.kind for question in shown.questions] == ["reading"]
    asked = fit.filmed(fit.drawn(random.Random(0)))
    assert fit.logits(asked, random.Random(0)).shape[0] == 2


def test_only_the_network_learns_and_a_resumed_training_is_the_same(host, tmp_path, monkeypatch):
    check_only_the_network_learns(PVCFit, TINY, *host, tmp_path, monkeypatch)


def test_settings_that_make_no_sense(host):
    with pytest.raises(ValueError, match="choose one of causal, both, none"):
        PVCFit(order="back")
    with pytest.raises(ValueError, match="blocks=4 does not divide the 6 patches"):
        PVCFit(blocks=(4,)).build(*host)

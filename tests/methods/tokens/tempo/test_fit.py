"""Training of Tempo."""

import random

import pytest
import torch
from helpers.streaming_tools import check_same_as_session, stirred, video_testbed
from helpers.visual_fit import check_only_the_network_learns, made

from laconic.methods.tokens.tempo.fit import TempoFit
from laconic.methods.tokens.tempo.method import Tempo

TINY = {"images": 2, "questions": 2, "layers": 1, "frames": (8,), "notes": 4}


@pytest.fixture(scope="module")
def host():
    return video_testbed()


def built(host, **settings):
    fit = TempoFit(**TINY | settings)
    torch.manual_seed(0)
    stirred(fit.build(*host))
    return fit


def test_training_reads_what_a_session_reads(host, tmp_path):
    fit = built(host)
    check_same_as_session(fit, *host, Tempo(routed=False, artifact=made(fit, host[0], tmp_path / "net.safetensors")))


def test_only_the_network_learns_and_a_resumed_training_is_the_same(host, tmp_path, monkeypatch):
    check_only_the_network_learns(TempoFit, TINY, *host, tmp_path, monkeypatch)


def test_answers_of_yes_are_taught_by_what_segments_show(host):
    fit = built(host, frames=(16,))
    asked = fit.filmed(fit.drawn(random.Random(5)))
    answers, total = torch.randn(len(asked.ids), 4, 2), 0.0
    for where, row in zip(asked.where, answers, strict=True):
        for i, said in enumerate(row):
            total -= float(said.log_softmax(-1)[0 if where[4 * i : 4 * i + 4].any() else 1])
    torch.testing.assert_close(fit.told(asked, answers), torch.tensor(total / answers[..., 0].numel()), rtol=1e-4, atol=1e-4)


def test_a_random_prefix_of_the_notes_may_be_read(host, monkeypatch):
    fit, seen = built(host, prefix=True), set()
    asked = fit.filmed(fit.drawn(random.Random(5)))
    monkeypatch.setattr(fit, "answered", lambda asked, soft, words: seen.add(soft.shape[1]))
    for step in range(12):
        fit.logits(asked, random.Random(step))
    assert seen == {2 * (1 + k) for k in (1, 2, 3, 4)}


def test_the_loss_is_of_the_answers_and_of_yes_and_no(host):
    fit = built(host, relevance=0.5)
    asked, rng = fit.batch(0)
    with torch.no_grad():
        both = fit.loss((asked, rng))
        answers = super(TempoFit, fit).loss((asked, rng))
    assert float(fit.said) > 0.1
    torch.testing.assert_close(both, answers + 0.5 * fit.said)


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="frames=10 is not divided into segments of window=4"):
        TempoFit(frames=(16, 10))

"""Training of VideoStreaming."""

import random

import pytest
import torch
import torch.nn.functional as F
from helpers.streaming_tools import check_same_as_session, stirred, video_testbed
from helpers.visual_fit import check_only_the_network_learns, made

from laconic.methods.tokens.videostreaming.fit import VideoStreamingFit
from laconic.methods.tokens.videostreaming.method import VideoStreaming
from laconic.methods.tokens.videostreaming.network import relevance
from laconic.ops.rows import gathered

TINY = {"images": 2, "questions": 2, "layers": 1, "frames": (8,), "select": 1}


@pytest.fixture(scope="module")
def host():
    return video_testbed()


def built(host, **settings):
    fit = VideoStreamingFit(**TINY | settings)
    torch.manual_seed(0)
    stirred(fit.build(*host))
    return fit


def test_training_reads_what_a_session_reads(host, tmp_path):
    fit = built(host, frames=(16,), select=2)
    check_same_as_session(fit, *host, VideoStreaming(select=2, artifact=made(fit, host[0], tmp_path / "net.safetensors")))


def test_only_the_network_learns_and_a_resumed_training_is_the_same(host, tmp_path, monkeypatch):
    check_only_the_network_learns(VideoStreamingFit, TINY, *host, tmp_path, monkeypatch)


def test_the_choice_is_taught_which_clips_show_what_is_asked_about(host):
    fit = built(host, frames=(16,), steps=10)
    asked = fit.filmed(fit.drawn(random.Random(5)))
    scores = torch.randn(len(asked.ids), 4)
    total = 0.0
    for where, row in zip(asked.where, scores, strict=True):
        hit = [bool(where[k * 4 : k * 4 + 4].any()) for k in range(4)]
        share = F.softmax(row / 0.1, 0)
        total += sum(-torch.log(share[k] * sum(hit)) / sum(hit) for k in range(4) if hit[k])
    torch.testing.assert_close(fit.divergence(asked, scores), total / len(scores), rtol=1e-4, atol=1e-4)
    fit.batch(3)
    guided = fit.guiding
    fit.batch(4)
    assert guided and not fit.guiding


def test_what_is_taught_is_in_the_loss_of_guided_steps(host):
    fit = built(host, steps=10)
    batch = fit.batch(3)
    with torch.no_grad():
        taught = fit.loss(batch)
        fit.guiding = False
        answers = fit.loss(batch)
    assert float(fit.guide) > 0.1
    torch.testing.assert_close(taught, answers + fit.guide)


def test_answers_alone_teach_the_choice(host):
    """No memory depends on the indicator: what it learns has come through the choice."""
    fit = built(host, guided=0.0)
    fit.net.requires_grad_(True).train()
    torch.manual_seed(0)
    fit.loss(fit.batch(0)).backward()
    assert fit.net.indicator.grad is not None and bool(fit.net.indicator.grad.any())


def chosen(fit, asked):
    """How near each clip is to each question."""
    memories, codes = (x.repeat_interleave(len(asked.ids) // 2, 0) for x in fit.read(asked.features.float()))
    words = gathered(fit.words(asked), asked.text)
    return relevance(fit.net.question(memories[:, -1], words, asked.text.sum(1)), codes)


def test_guidance_alone_finds_the_clip(host):
    """line 7, of one batch: the taught choice ends on clips that show what is asked about"""
    fit = built(host, frames=(16,), images=2, questions=4, select=1)
    asked, params = fit.filmed(fit.drawn(random.Random(2))), list(fit.net.requires_grad_(True).parameters())
    optimizer = torch.optim.AdamW(params, lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        fit.divergence(asked, chosen(fit, asked)).backward()
        optimizer.step()
    with torch.no_grad():
        best = chosen(fit, asked).argmax(-1)
    hit = asked.where.unflatten(1, (-1, 4)).any(-1)
    assert float(hit[torch.arange(len(best)), best].float().mean()) > 0.9


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="frames=10 is not divided into clips of length=4"):
        VideoStreamingFit(frames=(16, 10))
    with pytest.raises(ValueError, match="fewer than select=5"):
        VideoStreamingFit(select=5)
    with pytest.raises(ValueError, match="no file of videos is read"):
        VideoStreamingFit(file="a.jsonl")

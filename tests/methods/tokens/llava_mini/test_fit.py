"""Training of LLaVA-Mini. "line n" is what the card must show."""

import random
from dataclasses import replace

import pytest
import torch
from helpers.visual_fit import check_only_the_network_learns, check_same_as_session, made, network_of, processor

from laconic.methods.tokens.llava_mini.fit import LlavaMiniFit
from laconic.methods.tokens.llava_mini.method import LlavaMini

TINY = {"images": 2, "questions": 2, "sides": (3,), "fusion": 1}


@pytest.fixture(scope="module")
def reader():
    return processor()


def test_training_reads_what_a_session_reads(vlm, reader, tmp_path):
    fit = LlavaMiniFit(**TINY)
    network_of(fit, vlm, reader)
    method = LlavaMini(side=3, artifact=made(fit, vlm, tmp_path / "net.safetensors"))
    check_same_as_session(fit, vlm, reader, method)


def test_answers_do_not_change_the_fused_text(vlm, reader, monkeypatch):
    """line 4"""
    fit, read = LlavaMiniFit(**TINY), []
    network_of(fit, vlm, reader)
    monkeypatch.setattr(type(fit.net), "fused", lambda self, visual, text: read.append(text) or text)
    asked = fit.asked(0)
    other = replace(asked, ids=torch.where(asked.labels != -100, 7, asked.ids))
    assert not torch.equal(other.ids, asked.ids)
    first, second = (fit.logits(one, random.Random(0)) for one in (asked, other))
    assert torch.equal(read[0], read[1]) and not torch.equal(first, second)


def test_only_the_network_learns_and_a_resumed_training_is_the_same(vlm, reader, tmp_path, monkeypatch):
    check_only_the_network_learns(LlavaMiniFit, TINY, vlm, reader, tmp_path, monkeypatch)


def test_settings_that_make_no_sense(vlm, reader):
    with pytest.raises(ValueError, match=r"sides=\(13,\): this model's views have 12 tokens a side"):
        LlavaMiniFit(sides=(13,)).build(vlm, reader)
    for wrong in ({"fusion": -1}, {"sides": (0,)}, {"warmup": 1.0}):
        with pytest.raises(ValueError, match="must be"):
            LlavaMiniFit(**wrong)

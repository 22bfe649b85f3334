"""Training of HICom."""

import pytest
from helpers.visual_fit import check_only_the_network_learns, check_same_as_session, made, network_of, processor

from laconic.methods.tokens.hicom.fit import HIComFit
from laconic.methods.tokens.hicom.method import HICom

TINY = {"images": 2, "questions": 2, "blocks": (4,), "learned": 2}


@pytest.fixture(scope="module")
def reader():
    return processor()


def test_training_reads_what_a_session_reads(vlm, reader, tmp_path):
    fit = HIComFit(**TINY)
    network_of(fit, vlm, reader)
    check_same_as_session(fit, vlm, reader, HICom(artifact=made(fit, vlm, tmp_path / "net.safetensors")))


def test_only_the_network_learns_and_a_resumed_training_is_the_same(vlm, reader, tmp_path, monkeypatch):
    check_only_the_network_learns(HIComFit, TINY, vlm, reader, tmp_path, monkeypatch)


def test_settings_that_make_no_sense(vlm, reader):
    with pytest.raises(ValueError, match=r"blocks=\(13,\): this model's views have 12 patches a side"):
        HIComFit(blocks=(13,)).build(vlm, reader)
    with pytest.raises(ValueError, match="choose one of question, block, none"):
        HIComFit(query="text")

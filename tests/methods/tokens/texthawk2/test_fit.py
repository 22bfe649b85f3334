"""Training of TextHawk2."""

import random

import pytest
import torch
from helpers.visual_fit import check_only_the_network_learns, check_same_as_session, made, network_of, processor

from laconic.methods.tokens.texthawk2.fit import TextHawk2Fit
from laconic.methods.tokens.texthawk2.method import TextHawk2

TINY = {"images": 2, "questions": 2, "routing": (3, 0), "expansion": 1}


@pytest.fixture(scope="module")
def reader():
    return processor()


@pytest.mark.parametrize("tile", [0, 6])
def test_training_reads_what_a_session_reads(vlm, reader, tmp_path, tile):
    fit = TextHawk2Fit(**TINY, tile=tile)
    network_of(fit, vlm, reader)
    check_same_as_session(fit, vlm, reader, TextHawk2(artifact=made(fit, vlm, tmp_path / "net.safetensors")))


def test_only_the_network_learns_and_a_resumed_training_is_the_same(vlm, reader, tmp_path, monkeypatch):
    check_only_the_network_learns(TextHawk2Fit, TINY, vlm, reader, tmp_path, monkeypatch)


def test_every_step_draws_one_stride(vlm, reader):
    fit = TextHawk2Fit(**TINY | {"pools": (1, 2)})
    network_of(fit, vlm, reader)
    asked = fit.asked(0)
    with torch.no_grad():
        lengths = {fit.logits(asked, random.Random(step)).shape[1] for step in range(8)}
    assert {n - min(lengths) for n in lengths} == {0, 27}


def test_stages_end_at_the_features(vlm, reader):
    fit = TextHawk2Fit(**TINY)
    fit.build(vlm, reader)
    assert fit.facts()["stages"] == [1, 2, 3, 4]  # of five layers; the features are those of the last but one


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"pools": (5,)}, "cannot be divided by 5"),
        ({"group": (4, 1)}, "12 x 12 patches, in tiles of 12 x 12, cannot be divided by 2"),
        ({"tile": 5}, "tile=5 does not divide the 12"),
        ({"tile": 3}, "in tiles of 3 x 3, cannot be divided by 2"),
        ({"routing": (4,)}, "must name stages 0 to 3"),
        ({"stages": (2, 5)}, "layers 1 to 4"),
    ],
)
def test_settings_that_make_no_sense(vlm, reader, setting, message):
    with pytest.raises(ValueError, match=message):
        TextHawk2Fit(**setting).build(vlm, reader)


def test_a_group_has_rows_and_columns():
    with pytest.raises(ValueError, match="must be rows and columns"):
        TextHawk2Fit(group=(4,))

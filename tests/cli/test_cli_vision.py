"""`laconic calibrate fitprune` and `laconic train dyvte`."""

import json

import pytest
from helpers.vision_tools import random_vlm

from laconic.methods.tokens.dyvte.network import load
from laconic.testbed.vlm_model import build_processor, build_tokenizer


@pytest.fixture(scope="module")
def vlm_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vlm")
    random_vlm().save_pretrained(folder)
    build_processor(build_tokenizer()).save_pretrained(folder)
    return folder


def test_fitprune(laconic, vlm_folder, tmp_path):
    out = tmp_path / "r.json"
    few = ("--samples", 2, "--reductions", "40,60", "--out", out)
    made = laconic.json("calibrate", "fitprune", "--model", vlm_folder, *few)
    assert [fit["reduction"] for fit in made["recipe"]["fits"]] == [40, 60]
    assert json.loads(out.read_text())["made"]["reductions"] == [40, 60]
    assert "whole numbers" in laconic.bad(2, "calibrate", "fitprune", "--reductions", "a", "--out", out)
    assert "does not prepare images" in laconic.bad(2, "calibrate", "fitprune", "--samples", 1, "--out", out)


def test_dyvte(laconic, vlm_folder, tmp_path):
    small = [f"--set={pair}" for pair in ("width=4", "batch=2", "check=1", "log_every=1", "save_every=1")]
    start = ("train", "dyvte", "--model", vlm_folder, "--out", tmp_path)
    shown = laconic(*start, "--steps", 1, *small)
    assert shown.exit_code == 0, shown.output
    assert "step 1 loss" in shown.stdout and "use it as weights= of dyvte" in shown.stdout
    more = laconic.json(*start, "--steps", 2, "--resume", *small)
    made = load(more["weights"])
    assert len(made.layers) == 7 and made.shares[0][0] == 0.0 and 0.5 in dict(made.shares)

"""`laconic fit` on models with images."""

import pytest
from helpers.vision_tools import random_vlm

from laconic.artifact import Artifact
from laconic.methods.tokens.dyvte.network import load
from laconic.testbed.vlm_model import build_processor, build_tokenizer


@pytest.fixture(scope="module")
def vlm_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vlm")
    random_vlm().save_pretrained(folder)
    build_processor(build_tokenizer()).save_pretrained(folder)
    return folder


def test_fitprune(laconic, vlm_folder, tmp_path):
    out = tmp_path / "r.safetensors"
    few = ("--set", "samples=2", "--set", "reductions=40,60", "--out", out)
    made = laconic.json("fit", "fitprune", "--model", vlm_folder, *few)
    assert [fit["reduction"] for fit in made["data"]["fits"]] == [40, 60]
    assert Artifact.load(out).settings["reductions"] == [40, 60]
    assert "whole number" in laconic.bad(2, "fit", "fitprune", "--set", "reductions=a", "--out", out)
    assert "does not prepare images" in laconic.bad(2, "fit", "fitprune", "--set", "samples=1", "--out", out)


def test_dyvte(laconic, vlm_folder, tmp_path):
    small = [f"--set={pair}" for pair in ("width=4", "batch_size=2", "check=1", "log_every=1", "save_every=1")]
    start = ("fit", "dyvte", "--model", vlm_folder, "--out", tmp_path)
    shown = laconic(*start, "--set=steps=1", *small)
    assert shown.exit_code == 0, shown.output
    assert "step 1 loss" in shown.stdout and "dyvte:artifact=" in shown.stdout
    more = laconic.json(*start, "--set=steps=2", "--resume", *small)
    made = Artifact.load(more["file"])
    assert len(load(made)) == 7 and made.data["shares"][0][0] == 0.0 and 0.5 in dict(made.data["shares"])

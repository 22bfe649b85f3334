"""`laconic calibrate`."""

import json


def test_a_recipe_is_written_and_used(laconic, tmp_path, context):
    out = tmp_path / "r.json"
    shown = laconic.json("calibrate", "razorattention", "--model", "testbed/lm", "--tokens", 64, "--out", out)
    assert shown["file"] == str(out) and shown["recipe"] == json.loads(out.read_text())["data"]
    text = laconic("calibrate", "razorattention", "--tokens", 64, "--material", "sentences", "--out", out)
    assert text.exit_code == 0 and "induction score" in text.stdout and "wrote" in text.stdout
    spec = f"razorattention:recipe={out},induction=0.25"
    arguments = ("--method", spec, "--keep", 0.5, "--context", context, "--question", "What is the code for falcon?")
    assert "4815263" in laconic.json("run", *arguments)["answer"]


def test_options_of_needle_prompts(laconic, tmp_path):
    out = tmp_path / "r.json"
    made = laconic.json("calibrate", "fastkv", "--lengths", "128,160", "--depths", 2, "--needles", 1, "--out", out)
    assert len(made["recipe"]["distances"]) == 3
    assert json.loads(out.read_text())["made"]["lengths"] == [128, 160]


def test_bad_input(laconic, tmp_path):
    assert "no calibration" in laconic.bad(2, "calibrate", "snapkv")
    assert "no option 'depths'" in laconic.bad(2, "calibrate", "razorattention", "--depths", 3, "--out", tmp_path / "x")
    assert "whole numbers" in laconic.bad(2, "calibrate", "fastkv", "--lengths", "a,b")
    assert "folder does not exist" in laconic.bad(2, "calibrate", "fastkv", "--out", tmp_path / "no" / "x.json")
    assert "reserved for evaluation" in laconic.bad(2, "calibrate", "fastkv", "--seed", 1_000_000, "--out", tmp_path / "x")


def test_a_model_that_answers_no_needle_is_said_so(laconic, tmp_path, model, plain_model):
    few = ("--lengths", 300, "--depths", 1, "--needles", 1, "--out", tmp_path / "x.json")
    for folder in (model, plain_model):
        assert "answered none of 1" in laconic.bad(2, "calibrate", "compresskv", "--model", folder, *few)
    assert not (tmp_path / "x.json").exists()

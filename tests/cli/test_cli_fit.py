"""`laconic fit`."""

import json
import re

import pytest
from helpers.fit_toy import ToyFit

from laconic.artifact import Artifact
from laconic.fit.checkpoint import CHECKPOINT

SMALL = [
    f"--set={pair}"
    for pair in ("memory=12", "kernel=5", "slack=2", "chunk=16", "tokens=64", "batch_size=1", "log_every=1", "save_every=1")
]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("The code for falcon is 4815263. " * 20, encoding="utf-8")
    return f"--set=text={path}"


def test_a_measurement_is_written_and_used(laconic, tmp_path, context):
    out = tmp_path / "r.safetensors"
    shown = laconic.json("fit", "razorattention", "--model", "testbed/lm", "--set", "tokens=64", "--out", out)
    assert shown["file"] == str(out) and shown["data"] == Artifact.load(out).data and shown["kind"] == "measured"
    assert shown["settings"]["tokens"] == 64 and "induction score" in shown["notes"][0]
    told = laconic("fit", "razorattention", "--set=tokens=64", "--set", "material=prose", "--out", out)
    assert told.exit_code == 0 and "induction score" in told.stdout
    assert f"use it as --method razorattention:artifact={out}" in told.stdout
    spec = f"razorattention:artifact={out},induction=0.25"
    arguments = ("--method", spec, "--keep", 0.5, "--context", context, "--question", "What is the code for falcon?")
    assert "4815263" in laconic.json("run", *arguments)["answer"]


def test_settings_of_several_numbers_and_a_folder(laconic, tmp_path):
    out = tmp_path / "new" / "folder"
    given = ("--set", "lengths=128,160", "--set", "depths=2", "--set", "needles=1")
    made = laconic.json("fit", "fastkv", *given, "--out", out)
    assert made["file"] == str(out / "artifact.safetensors") and len(made["data"]["distances"]) == 3
    assert Artifact.load(out).settings["lengths"] == [128, 160]


def test_without_out_the_file_is_named_after_method_and_model(laconic, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    laconic.json("fit", "razorattention", "--set", "tokens=32")
    assert [path.name for path in tmp_path.iterdir()] == ["razorattention-testbed-lm.safetensors"]


def test_a_training_leaves_its_checkpoint_and_goes_on(laconic, model, tmp_path, text):
    out = tmp_path / "out"
    shown = laconic("fit", "lococo", "--model", model, "--out", out, "--set=steps=2", *SMALL, text)
    assert shown.exit_code == 0, shown.output
    assert "step 2 loss" in shown.stdout and f"lococo:artifact={out}/artifact.safetensors" in shown.stdout
    assert Artifact.load(out).data == {"memory": 12}
    more = laconic.json("fit", "lococo", "--model", model, "--out", out, "--set=steps=3", "--resume", *SMALL, text)
    assert more["file"] == str(out / "artifact.safetensors") and more["settings"]["steps"] == 3
    lines = (out / "train.log").read_text().splitlines()
    assert [line.split(" loss")[0] for line in lines] == ["step 1", "step 2", "step 3"]
    assert "holds a training already" in laconic.bad(2, "fit", "lococo", "--model", model, "--out", out, *SMALL, text)


def test_beside_a_file_the_training_has_a_folder(laconic, model, context, tmp_path, text):
    out = tmp_path / "mixers.safetensors"
    laconic.json("fit", "lococo", "--model", model, "--out", out, "--set=steps=1", *SMALL, text)
    assert (tmp_path / "mixers.training" / CHECKPOINT).exists()
    asked = ["--model", model, "--context", context, "--question", "Which code?", "--max-new-tokens", 3]
    whole, short = (laconic.json("run", *asked, *extra) for extra in ([], ["--method", f"lococo:artifact={out}"]))
    assert short["kv_bytes"] < whole["kv_bytes"] / 2


def test_ctrl_c_says_how_to_go_on(laconic, model, tmp_path, text, monkeypatch):
    def stops(self, step):
        raise KeyboardInterrupt

    monkeypatch.setattr("laconic.methods.cache.lococo.fit.LoCoCoFit.batch", stops)
    shown = laconic("fit", "lococo", "--model", model, "--out", tmp_path / "out", *SMALL, text)
    assert shown.exit_code == 130 and "--resume continues from there" in shown.stderr and "interrupted" in shown.stderr
    assert (tmp_path / "out" / CHECKPOINT).exists() and not (tmp_path / "out" / "artifact.safetensors").exists()


def test_what_can_be_fitted_is_listed(laconic):
    rows = {row["method"]: row for row in laconic.json("fit")}
    assert {"lococo", "compresskv", "embedlens"} <= rows.keys() and "snapkv" not in rows
    assert rows["lococo"]["kind"] == "trained" and rows["compresskv"]["kind"] == "measured"
    assert rows["lococo"]["settings"]["memory"] == 128 and rows["compresskv"]["settings"]["lengths"] == [256, 512, 1024]
    told = laconic("fit").stdout
    assert "compresskv (measured): Needle prompts" in told and "lengths=256,512,1024" in told


def test_what_an_outsider_registered_is_fitted_too(laconic, tmp_path, monkeypatch):
    monkeypatch.setattr("laconic.fit.find.fit_of", lambda entry: ToyFit if entry.name == "knorm" else None)
    made = laconic.json("fit", "knorm", "--out", tmp_path / "a.safetensors", "--set", "width=3", "--set", "sizes=4,5")
    assert made["settings"]["sizes"] == [4, 5] and made["data"] == {"training": False}
    assert [row["method"] for row in laconic.json("fit")] == ["knorm"]


def test_old_files_are_converted(laconic, tmp_path):
    old = {"method": "fastkv", "model": "m", "fingerprint": None, "data": {"tsp_layer": 1}, "made": {}, "versions": {}}
    (tmp_path / "old.json").write_text(json.dumps(old))
    message = laconic.bad(2, "run", "--method", f"fastkv:artifact={tmp_path}/old.json", "--context", tmp_path / "old.json")
    found = re.search(r"convert it with `laconic (fit --convert \S+) NEW\.safetensors`", message)
    assert found, message
    made = laconic.json(*found[1].split(), tmp_path / "new.safetensors")
    assert made["method"] == "fastkv" and Artifact.load(tmp_path / "new.safetensors").data == {"tsp_layer": 1}
    assert "is neither a recipe" in laconic.bad(
        2, "fit", "--convert", tmp_path / "new.safetensors", tmp_path / "x.safetensors"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lococco"], "did you mean lococo"),
        (["snapkv"], "snapkv needs no fit; `laconic fit` lists"),
        (["lococo", "--set", "memry=3"], "did you mean memory? Settings: seed=0, steps=1000"),
        (["razorattention", "--set", "depths=3"], "razorattention has no setting 'depths'"),
        (["lococo", "--set", "memory"], "as name=value"),
        (["lococo", "--set", "memory=1", "--set", "memory=2"], "give each setting once"),
        (["lococo", "--set", "kernel=4"], "kernel=4 must be odd"),
        (["lococo", "--set", "memory=many"], "memory='many' must be a whole number"),
        (["fastkv", "--set", "lengths=a,b"], "must be a whole number"),
        (["fastkv", "--set", "seed=1000000"], "reserved for evaluation"),
        (["fastkv", "--out", "no/such/x.safetensors"], "folder does not exist"),
        (["fastkv", "--dtype", "int3"], "choose one of auto"),
    ],
)
def test_bad_input(laconic, arguments, message):
    assert message in laconic.bad(2, "fit", *arguments)


def test_a_file_that_is_no_artifact_is_not_overwritten(laconic, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert "ends in .safetensors" in laconic.bad(2, "fit", "fastkv", "--out", tmp_path / "notes.txt")


def test_nothing_to_resume(laconic, model, tmp_path, text):
    resumed = ("--model", model, "--out", tmp_path, "--resume")
    assert "no checkpoint to resume from" in laconic.bad(2, "fit", "lococo", *resumed, text)
    assert "nothing to resume" in laconic.bad(2, "fit", "razorattention", "--set=tokens=16", *resumed)


def test_a_model_that_answers_no_needle_is_an_error(laconic, tmp_path, model, plain_model):
    few = [f"--set={pair}" for pair in ("lengths=300", "depths=1", "needles=1")]
    for folder in (model, plain_model):
        said = laconic.bad(2, "fit", "compresskv", "--model", folder, *few, "--out", tmp_path / "x.safetensors")
        assert "answered none of 1" in said
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("verb", ["calibrate", "train"])
def test_the_old_names_go_on_for_one_release(laconic, tmp_path, verb):
    shown = laconic(verb, "razorattention", "--set", "tokens=16", "--out", tmp_path / "r.safetensors", "--json")
    assert shown.exit_code == 0 and json.loads(shown.stdout)["method"] == "razorattention"
    assert f"laconic {verb} is deprecated" in shown.stderr and "use laconic fit" in shown.stderr
    assert f"│ {verb} " not in laconic("--help").stdout


def test_settings_are_explained(laconic):
    rows = laconic.json("fit", "icae", "--settings")
    assert {row["setting"]: row["default"] for row in rows}["keeps"] == "0.5,0.25"
    assert {row["setting"]: row["meaning"] for row in rows}["segment"] == "tokens of a segment"
    shown = laconic("fit", "icae", "--settings")
    assert shown.exit_code == 0 and "tokens of a segment" in shown.stdout
    wrong = laconic("fit", "--settings")
    assert wrong.exit_code == 2 and "of which method?" in wrong.output

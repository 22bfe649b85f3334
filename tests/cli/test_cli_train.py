"""`laconic train`."""

import pytest

from laconic.methods.cache.lococo.network import load

SMALL = [
    f"--set={pair}"
    for pair in ("memory=12", "kernel=5", "slack=2", "chunk=16", "tokens=64", "batch=1", "log_every=1", "save_every=1")
]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("The code for falcon is 4815263. " * 20, encoding="utf-8")
    return f"--set=text={path}"


def test_it_trains_writes_weights_and_goes_on(laconic, model, tmp_path, text):
    out = tmp_path / "out"
    shown = laconic("train", "lococo", "--model", model, "--out", out, "--steps", 2, *SMALL, text)
    assert shown.exit_code == 0, shown.output
    assert "step 2 loss" in shown.stdout and "use it as weights= of lococo" in shown.stdout
    assert load(out / "lococo.safetensors").memory == 12
    more = laconic.json("train", "lococo", "--model", model, "--out", out, "--steps", 3, "--resume", *SMALL, text)
    assert more["weights"] == str(out / "lococo.safetensors") and more["settings"]["steps"] == 3
    assert [line.split(" loss")[0] for line in (out / "train.log").read_text().splitlines()] == [
        "step 1",
        "step 2",
        "step 3",
    ]


def test_the_weights_run(laconic, model, context, tmp_path, text):
    out = tmp_path / "out"
    laconic.json("train", "lococo", "--model", model, "--out", out, "--steps", 1, *SMALL, text)
    method = f"lococo:weights={out / 'lococo.safetensors'}"
    asked = ["--model", model, "--context", context, "--question", "Which code?", "--max-new-tokens", 3]
    whole, short = (laconic.json("run", *asked, *extra) for extra in ([], ["--method", method]))
    assert short["kv_bytes"] < whole["kv_bytes"] / 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lococco"], "did you mean lococo"),
        (["lococo", "--set", "memry=3"], "did you mean memory"),
        (["lococo", "--set", "memory"], "as name=value"),
        (["lococo", "--set", "kernel=4"], "kernel=4 must be odd"),
    ],
)
def test_bad_input(laconic, arguments, message):
    assert message in laconic.bad(2, "train", *arguments)


def test_nothing_to_resume(laconic, model, tmp_path, text):
    assert "no checkpoint to resume from" in laconic.bad(
        2, "train", "lococo", "--model", model, "--out", tmp_path, "--resume", text
    )

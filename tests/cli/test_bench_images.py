"""`laconic bench` over images."""

import json

import pytest
from helpers import image_formats as formats
from helpers.image_tools import enter_methods, leave_methods, save_small_vlm
from typer.testing import CliRunner

from laconic.bench.runner import Bench
from laconic.cli import app

SMALL = ["--tasks=colour,existence", "--methods=test_first,test_late", "--keep=0.5", "--samples=3", "--batch=2"]


@pytest.fixture(scope="module", autouse=True)
def methods():
    names = enter_methods()
    yield
    leave_methods(names)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(save_small_vlm(tmp_path_factory.mktemp("model") / "small"))


def run(*arguments: str):
    return CliRunner().invoke(app, ["bench", *arguments])


def read(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def test_image_tasks_make_a_bench_over_images(model, tmp_path):
    done = run("--model", model, "--out", str(tmp_path), *SMALL)
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "results.jsonl", "table.md"]
    assert len(read(tmp_path)) == 2 * 3 * 2
    assert "test_first" in done.output and "prefill FLOPs" in done.output
    said = " ".join(done.output.split())
    assert "left out: test_late at keep 0.5: test_late: all visual tokens run through the first 2 of 3 layers" in said
    assert "12 rows in" in said


def test_json_and_report_only(model, tmp_path):
    done = run("--model", model, "--out", str(tmp_path), "--json", *SMALL)
    said = json.loads(done.stdout)
    assert [line["method"] for line in said["lines"]] == ["none", "test_first"]
    assert [(x["method"], x["keep"]) for x in said["refused"]] == [("test_late", 0.5)]
    table = (tmp_path / "table.md").read_bytes()
    (tmp_path / "table.md").unlink()
    assert run("--out", str(tmp_path), "--report-only").exit_code == 0
    assert (tmp_path / "table.md").read_bytes() == table


def test_a_public_benchmark_runs_by_its_folder(model, tmp_path):
    data = f"pope={formats.pope(tmp_path / 'pope')}"
    done = run("--model", model, "--data", data, "--methods=test_first", "--keep=0.5", "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    assert len(read(tmp_path / "out")) == 6 * 2
    assert "| precision |" in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")


def test_ctrl_c_leaves_whole_rows_and_the_same_command_goes_on(model, tmp_path, monkeypatch):
    real, calls = Bench.rows, []

    def interrupted(self, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(Bench, "rows", interrupted)
    done = run("--model", model, "--out", str(tmp_path), *SMALL)
    assert done.exit_code == 130 and "rows are safe" in " ".join(done.output.split())
    there = len(read(tmp_path))
    monkeypatch.setattr(Bench, "rows", real)
    again = run("--model", model, "--out", str(tmp_path), *SMALL)
    assert again.exit_code == 0 and 0 < there < len(read(tmp_path)) == 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tasks", "colour,single"], "unknown task 'colour'"),
        (["--data", "pope"], "--data pope is no file of your own questions; or name the benchmark"),
        (["--data", "pope=nowhere"], "nowhere is not a folder"),
        (["--data", "popee=nowhere"], "did you mean pope"),
        (["--tasks", "pope"], "--data pope=FOLDER"),
        (["--tasks", "colour", "--lengths", "512"], "modes and lengths are of text tasks"),
        (["--preset", "demo", "--data", "pope=nowhere"], "preset demo runs text tasks"),
        (["--preset", "imagse"], "did you mean images"),
        (["--model", "testbed/lm", "--tasks", "colour", "--methods", "random"], "reads no images"),
    ],
)
def test_bad_input_is_exit_2_with_help(tmp_path, arguments, said):
    done = run("--out", str(tmp_path / "none"), *arguments)
    assert done.exit_code == 2 and said in " ".join(done.output.split()), done.output
    assert "Traceback" not in done.output

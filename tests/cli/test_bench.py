"""`laconic bench` as a user meets it: one process, kills, interrupts, and what it says."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.bench_tools import save_tiny
from typer.testing import CliRunner

from laconic.bench.runner import Bench
from laconic.cli import app

SMALL = ["--tasks=single", "--methods=random", "--keep=0.5,0.1", "--lengths=128", "--modes=later", "--samples=2"]
LONG = ["--tasks=single,kvturns", "--methods=random,snapkv:window=8", "--keep=0.5", "--lengths=128", "--samples=10"]
PATIENCE = 600  # seconds; a busy machine is slow, not wrong
_PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
CLOCKS = ("seconds_first_token", "seconds_per_token", "seconds_compress", "peak_memory")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("model") / "tiny"))


def run(*arguments: str):
    return CliRunner().invoke(app, ["bench", *arguments])


def read(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def test_it_writes_three_files_and_prints_the_table(model, tmp_path):
    done = run("--model", model, "--out", str(tmp_path), *SMALL)
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "results.jsonl", "table.md"]
    assert len(read(tmp_path)) == 2 * (1 + 2)
    for said in ("6 rows on tiny", "chat template is always applied", "uncompressed", "random", "wrote "):
        assert said in done.output
    assert "\x1b" not in done.output and "━" not in done.output  # no bar, no colour in a pipe
    assert all("/" not in row["settings"]["model"] for row in read(tmp_path))  # a folder's name, not its path


def test_a_second_start_says_what_is_there_and_adds_nothing(model, tmp_path):
    run("--model", model, "--out", str(tmp_path), *SMALL)
    before = (tmp_path / "results.jsonl").read_bytes()
    (tmp_path / "results.jsonl").write_bytes(before[:-40])
    again = run("--model", model, "--out", str(tmp_path), *SMALL)
    assert "6 rows on tiny, 5 of them there already" in again.output and "torn last line was repaired" in again.output
    assert len({row["key"] for row in read(tmp_path)}) == len(read(tmp_path)) == 6


def test_json_is_alone_on_stdout_with_stable_keys(model, tmp_path):
    done = run("--model", model, "--out", str(tmp_path), "--json", *SMALL)
    said = json.loads(done.stdout)
    assert list(said) == ["lines", "failures", "refused", "files"]
    assert [line["method"] for line in said["lines"]] == ["none", "random", "random"]
    assert said["files"]["report.html"] == str(tmp_path / "report.html")


def test_report_only_needs_no_model(model, tmp_path):
    run("--model", model, "--out", str(tmp_path), *SMALL)
    table = (tmp_path / "table.md").read_bytes()
    for name in ("table.md", "report.html"):
        (tmp_path / name).unlink()
    done = run("--model", "testbed/nothing", "--out", str(tmp_path), "--report-only")
    assert done.exit_code == 0 and (tmp_path / "table.md").read_bytes() == table
    assert "random" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tasks", "singel"], "did you mean single"),
        (["--methods", "snapvk"], "did you mean snapkv"),
        (["--preset", "dmeo"], "did you mean demo"),
        (["--modes", "latr"], "did you mean later"),
        (["--keep", "half"], "--keep half: every value must be a number"),
        (["--keep", "1.5"], "keep=1.5 is out of range"),
        (["--samples", "0"], "samples=0"),
        (["--model", "testbed/ml"], "testbed/lm"),
        (["--executor", "dask"], "choose local, ray, ray://auto or ray://HOST:PORT"),
    ],
)
def test_bad_input_is_exit_2_with_help_and_without_a_file(tmp_path, arguments, said):
    done = run("--out", str(tmp_path / "none"), *arguments)
    assert done.exit_code == 2 and said in " ".join(done.output.split())
    assert "Traceback" not in done.output
    rows = tmp_path / "none" / "results.jsonl"
    assert not rows.exists() or rows.stat().st_size == 0


def test_report_only_without_results(tmp_path):
    done = run("--out", str(tmp_path / "none"), "--report-only")
    assert done.exit_code == 1 and "does not exist" in done.output


def test_changed_settings_are_refused(model, tmp_path):
    run("--model", model, "--out", str(tmp_path), *SMALL)
    text = (tmp_path / "results.jsonl").read_text(encoding="utf-8")
    (tmp_path / "results.jsonl").write_text(text.replace('"dtype": "float32"', '"dtype": "bfloat16"'), encoding="utf-8")
    done = run("--model", model, "--out", str(tmp_path), *SMALL)
    assert done.exit_code == 1 and "dtype: bfloat16 in the file, float32 now" in " ".join(done.output.split())


def test_ctrl_c_leaves_whole_rows_and_130(model, tmp_path, monkeypatch):
    real, calls = Bench.rows, []

    def interrupted(self, cells, batch):
        calls.append(cells)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, cells, batch)

    monkeypatch.setattr(Bench, "rows", interrupted)
    done = run("--model", model, "--out", str(tmp_path), *SMALL)
    assert done.exit_code == 130 and "3 rows are safe" in " ".join(done.output.split())
    assert len(read(tmp_path)) == 3
    monkeypatch.setattr(Bench, "rows", real)
    assert run("--model", model, "--out", str(tmp_path), *SMALL).exit_code == 0
    assert len(read(tmp_path)) == 6


@pytest.mark.slow
def test_sigkill_and_sigint_then_restart_equal_an_uninterrupted_run(model, tmp_path):
    command = [sys.executable, "-m", "laconic.cli", "bench", "--model", model, "--out", str(tmp_path / "cut"), *LONG]
    for sign, code in [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)]:
        process = subprocess.Popen(command, env=_environment(), preexec_fn=_hear_sigint, **_PIPES)
        _wait_for(tmp_path / "cut" / "results.jsonl", 10, process)
        process.send_signal(sign)
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == code
        assert sign is signal.SIGKILL or re.search(r"stopped: \d+ rows are safe", said)
    assert run("--model", model, "--out", str(tmp_path / "cut"), *LONG).exit_code == 0
    assert run("--model", model, "--out", str(tmp_path / "whole"), *LONG).exit_code == 0
    cut, whole = read(tmp_path / "cut"), read(tmp_path / "whole")
    assert len(cut) == len(whole) == 2 * 2 * 3 * 10
    assert [_steady(row) for row in cut] == [_steady(row) for row in whole]


def _steady(row: dict) -> dict:
    settled = {k: v for k, v in row.items() if k not in CLOCKS}
    return settled | {"machine": row["machine"] | {"threads": 1}}


def _hear_sigint() -> None:
    """A test run in the background of a shell ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _environment() -> dict[str, str]:
    source = str(Path(__file__).parents[2] / "src")
    return os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def _wait_for(path: Path, rows: int, process: subprocess.Popen) -> None:
    """Until the running process has added `rows` rows."""
    limit, before = time.monotonic() + PATIENCE, _lines(path)
    while time.monotonic() < limit:
        if _lines(path) >= before + rows:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"no {rows} rows in {PATIENCE} s: {process.communicate()}")


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def test_a_users_own_questions(model, tmp_path):
    file = tmp_path / "mine.jsonl"
    document = {"context": "The goat is white. " * 20, "questions": [{"question": q, "answers": ["white"]} for q in "ab"]}
    file.write_text(json.dumps(document) + "\n", encoding="utf-8")
    arguments = "--model", model, "--data", str(file), "--methods", "random", "--keep", "0.5", "--out", str(tmp_path / "own")
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    rows = read(tmp_path / "own")
    assert len(rows) == 2 * 2 * 2 and {row["mode"] for row in rows} == {"aware", "agnostic"}
    assert {(row["task"], row["length"]) for row in rows} == {("own", 0)} and {row["seed"] for row in rows} == {0, 1}
    assert "mode later: the context is compressed" in done.output and "own" in done.output
    file.write_text(json.dumps(document | {"context": "Another text."}) + "\n", encoding="utf-8")
    again = run(*arguments)
    assert again.exit_code == 1 and "was made with other settings" in again.output and "data:" in again.output
    file.write_text("{}\n", encoding="utf-8")
    bad = run(*arguments)
    assert bad.exit_code == 2 and f"{file}, line 1 has no field 'context'" in " ".join(bad.output.split())
    assert run("--data", str(file), "--data", str(file)).exit_code == 2

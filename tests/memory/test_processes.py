"""A store that many processes use, some of which are killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import laconic

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
PATHS = str(Path(laconic.__file__).parents[1]), str(Path(__file__).parents[1])


def run(what: str, folder: Path, rounds: int) -> dict:
    command = [sys.executable, "-m", "helpers.store_processes", what, str(folder), str(rounds), "0"]
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=paths)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["problems"] == [], done.stderr
    return found


def test_a_writer_killed_at_20_moments_loses_and_corrupts_nothing(tmp_path):
    assert run("kill", tmp_path, 20)["acts"] > 20


@pytest.mark.slow
def test_a_writer_killed_at_200_moments_loses_and_corrupts_nothing(tmp_path):
    found = run("kill", tmp_path, 200)
    assert found["acts"] > 200 and found["parts"] > 10  # many were killed in the middle of a file


def test_a_writer_that_ends_at_any_of_its_system_calls_loses_and_corrupts_nothing(tmp_path):
    assert 20 < run("crash", tmp_path, 200)["calls"] < 200


def test_six_processes_at_once_write_every_key_once(tmp_path):
    assert run("crowd", tmp_path, 15)["entries"] >= 15

"""Methods from packages of their own are found by their entry points and run from the command line, without a core edit."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PACKAGES = sorted(path.parent for path in EXAMPLES.glob("*/pyproject.toml"))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def laconic(tmp_path_factory: pytest.TempPathFactory):
    """`laconic("methods", ...)` -> JSON of the command, in a process where the packages of examples/ are installed."""
    site, source = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("source")
    copies = [shutil.copytree(package, source / package.name) for package in PACKAGES]  # setuptools builds in place
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", site, *copies], check=True)

    def run(*args: object) -> object:
        path = os.pathsep.join([str(site), *filter(None, sys.path)])
        command = [sys.executable, "-m", "laconic.cli", *map(str, args), "--json"]
        done = subprocess.run(command, cwd=source, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_they_are_listed(laconic):
    found = {entry["name"]: (entry["site"], entry["training"]) for entry in laconic("methods")}
    assert found["loud_patches"] == ("tokens", "none") and found["loud_values"] == ("cache", "none")
    assert found["learned_scores"] == ("cache", "trained")


def test_a_cache_method_runs(laconic):
    asked = ("--context", EXAMPLES / "note.txt", "--question", "What is the code for falcon?")
    result = laconic("run", "--method", "loud_values", "--keep", 0.25, *asked)
    assert result["answer"] == "The code for falcon is 4815263."
    assert result["achieved"] == pytest.approx(0.25, rel=0.02)


def test_a_method_on_visual_tokens_runs(laconic):
    asked = ("--image", ROOT / "docs" / "scene.png", "--question", "What does the white sign say?")
    result = laconic("run", "--method", "loud_patches", "--keep", 0.5, *asked)
    assert result["visual_in"] == 144 and result["visual"]["0"] == 72


def test_a_method_trains_and_runs(laconic, tmp_path: Path):
    note, artifact = EXAMPLES / "note.txt", tmp_path / "scores.safetensors"
    assert "learned_scores" in {row["method"] for row in laconic("fit")}
    settings = ("--set", f"text={note}", "--set", "steps=30", "--set", "log_every=15")
    trained = laconic("fit", "learned_scores", "--model", "testbed/lm", "--out", artifact, *settings)
    first, last = (float(line.split()[3]) for line in trained["notes"][-2:])
    assert last < first < math.log(128)  # which is that of scores that are all equal, over 128 entries
    method = f"learned_scores:artifact={artifact}"
    asked = ("--later", "--context", note, "--question", "What is the code for falcon?")
    result = laconic("run", "--method", method, "--keep", 0.5, *asked)
    assert result["answer"] == "The code for falcon is 4815263."


def test_the_trained_package_is_short():
    lines = [line for file in (EXAMPLES / "learned_scores").rglob("*.py") for line in file.read_text("utf-8").splitlines()]
    assert 0 < len(lines) < 120

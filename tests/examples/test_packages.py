"""Methods from packages of their own are found by their entry points and run from the command line, without a core edit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PACKAGES = sorted(path.parent for path in EXAMPLES.glob("*/pyproject.toml"))


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
    found = {entry["name"]: entry["site"] for entry in laconic("methods", "loud*")}
    assert found == {"loud_patches": "tokens", "loud_values": "cache"}


def test_a_cache_method_runs(laconic):
    asked = ("--context", EXAMPLES / "note.txt", "--question", "What is the code for falcon?")
    result = laconic("run", "--method", "loud_values", "--keep", 0.25, *asked)
    assert result["answer"] == "The code for falcon is 4815263."
    assert result["achieved"] == pytest.approx(0.25, rel=0.02)


def test_a_method_on_visual_tokens_runs(laconic):
    asked = ("--image", ROOT / "docs" / "scene.png", "--question", "What does the white sign say?")
    result = laconic("run", "--method", "loud_patches", "--keep", 0.5, *asked)
    assert result["visual_in"] == 144 and result["visual"]["0"] == 72

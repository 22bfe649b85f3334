"""The wheel, built from a clean copy and installed into a fresh environment, answers with the model that it ships."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", source / "src", ignore=ignore)
    options = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", out)
    subprocess.run([*PIP, *options, source], check=True)
    (built,) = out.iterdir()
    return built


def test_every_file_of_the_package_is_in_it(wheel: Path):
    assert wheel.name.startswith("laconic_transformers-")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("laconic/")}
    here = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "laconic").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == here


def test_it_runs_in_a_fresh_environment(wheel: Path, tmp_path: Path):
    fresh = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", fresh], check=True)
    binaries = fresh / ("Scripts" if os.name == "nt" else "bin")
    install = ("install", "--quiet", "--no-deps", "--no-index", wheel)
    subprocess.run([*PIP, "--python", binaries / "python", *install], check=True)
    # What laconic depends on comes from this environment: a path in a .pth file does not bring its editable installs.
    (site,) = fresh.rglob("site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    note = shutil.copy(ROOT / "examples" / "note.txt", tmp_path)
    asked = ("--method", "snapkv", "--keep", "0.1", "--context", note, "--question", "What is the code for falcon?")
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [binaries / "laconic", "run", *asked, "--json"], cwd=tmp_path, env=bare, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answer"] == "The code for falcon is 4815263."
    where = "import laconic, pathlib; print(pathlib.Path(laconic.__file__).parent.parent)"
    found = subprocess.run(
        [binaries / "python", "-c", where], cwd=tmp_path, env=bare, capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()) == site

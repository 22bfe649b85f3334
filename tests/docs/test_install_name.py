"""Whoever installs what a page or a message names gets this project: on PyPI `laconic` is an unrelated one."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SHOWN = [
    *ROOT.glob("*.md"),
    ROOT / "Makefile",
    *(p for top in ("src", "docs", "benchmarks", "examples", "tests") for p in (ROOT / top).rglob("*")),
]
TEXTS = {
    path.relative_to(ROOT): path.read_text(encoding="utf-8")
    for path in SHOWN
    if path.suffix in (".py", ".md", ".toml", ".js", "") and path.is_file() and path != Path(__file__)
}
# `laconic` as a requirement: an extra of it, or a word of a `pip install` command.
AS_REQUIREMENT = re.compile(r"\blaconic\\?\[[a-z]|pip install[^`;,\n]*[ \t'\"]laconic(?![-\w/.])")


def test_the_pattern_sees_what_would_install_the_other_project():
    for wrong in ("pip install laconic", "pip install 'laconic[video]'", 'pip install -U "laconic"', "extra laconic[bench]"):
        assert AS_REQUIREMENT.search(wrong), wrong
    for right in (
        "pip install 'laconic-transformers[video]'",
        "pip install ./laconic",
        "pip install x; laconic run",
        "pip install openai\nlaconic run",
    ):
        assert not AS_REQUIREMENT.search(right), right


def test_nothing_names_the_other_project_as_a_requirement():
    wrong = [f"{path}: {found[0]}" for path, text in TEXTS.items() for found in AS_REQUIREMENT.finditer(text)]
    assert not wrong, wrong


def test_every_extra_that_is_named_exists():
    named = {
        (extra, str(path))
        for path, text in TEXTS.items()
        for found in re.findall(r"laconic-transformers\\?\[([a-z,]+)", text)
        for extra in found.split(",")
    }
    assert {"video", "bench"} <= {extra for extra, _ in named}
    missing = [f"{path}: {extra}" for extra, path in named if extra not in PROJECT["optional-dependencies"]]
    assert not missing, missing


def test_the_distribution_has_the_name_that_pages_and_the_doctor_give():
    assert PROJECT["name"] == "laconic-transformers" == importlib.import_module("laconic.cli.doctor").DISTRIBUTION
    assert list(PROJECT["scripts"]) == ["laconic"]

"""The documentation is held to the code: the catalogue page is current, the worked example runs, the README stays true."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from helpers.vision_tools import inputs

import laconic
from laconic.method import CATALOGUE

ROOT = Path(__file__).parents[2]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


def test_the_catalogue_page_is_current():
    command = [sys.executable, "-m", "tools.pages.catalogue", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_on_visual_tokens_runs(monkeypatch: pytest.MonkeyPatch, vlm):
    define = blocks("docs/adding-a-method.md", "python")[-1]
    module = types.ModuleType("visual_example")
    monkeypatch.setitem(sys.modules, "visual_example", module)
    try:
        exec(define, module.__dict__)
        with laconic.compress(vlm, module.LoudPatches(keep=0.25)) as session:
            vlm.generate(**inputs([(3, 5)]), max_new_tokens=2)
    finally:
        CATALOGUE.pop("loud_patches", None)
    assert session.stats.visual == dict.fromkeys(range(8), 36.0)


def test_the_worked_example_is_short_and_runs(monkeypatch: pytest.MonkeyPatch):
    define, use, _ = blocks("docs/adding-a-method.md", "python")
    assert len(define.splitlines()) < 60
    module = types.ModuleType("worked_example")  # dataclasses look their module up
    monkeypatch.setitem(sys.modules, "worked_example", module)
    names = module.__dict__
    try:
        exec(define, names)
        exec(use, names)
    finally:
        CATALOGUE.pop("loud_values", None)
    session = names["session"]
    assert isinstance(session, laconic.Session)
    assert abs(session.stats.asked - 0.5) < 0.05
    window = session.kept(layer=0, head=0)
    assert torch.equal(window, window.sort().values) and len(window) < session.stats.tokens_in


def test_the_readmes_python_runs():
    names: dict[str, object] = {}
    (code,) = blocks("README.md", "python")
    exec(code, names)


def test_the_readme_fits_the_model_that_reads_it():
    _, tokenizer = laconic.load("testbed/lm")
    tokens = len(tokenizer((ROOT / "README.md").read_text(encoding="utf-8")).input_ids)
    assert tokens < 2_000, f"README.md has {tokens} tokens; the demo reads it with a model of 2,048"


def test_links_between_pages_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"

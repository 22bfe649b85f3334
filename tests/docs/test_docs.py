"""The documentation is held to the code: the catalogue page is current, links lead somewhere."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["catalogue", "taxonomy"])
def test_pages_made_of_the_catalogue_are_current(page, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [page, "--check"])
    status = import_module(f"tools.pages.{page}").main()
    assert status == 0, capsys.readouterr().out


def test_links_between_pages_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"

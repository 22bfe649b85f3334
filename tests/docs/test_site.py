"""The documentation site: the reference has every public name, and a link that leads nowhere fails the build."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import laconic

ROOT = Path(__file__).parents[2]
SETTINGS = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_the_reference_has_every_public_name():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    shown = {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)", page, flags=re.M)}
    assert "laconic.errors" in page  # all of them at once
    errors = {name for name in laconic.__all__ if name.endswith("Error")}
    missing = set(laconic.__all__) - errors - shown - {"__version__"}
    assert not missing, f"docs/api.md lacks {', '.join(sorted(missing))}"


@pytest.fixture
def build(tmp_path: Path):
    """`build({path: text})` -> (exit status, what mkdocs said) of a small repository with the site's hook and its checks."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed; it comes with laconic-transformers[docs]")

    def run(pages: dict[str, str]) -> tuple[int, str]:
        (tmp_path / "tools").mkdir()
        shutil.copy(ROOT / "tools" / "site_pages.py", tmp_path / "tools")
        checks = re.search(r"^validation:.*?(?=^\S)", SETTINGS, flags=re.M | re.S)
        assert checks is not None
        nav = "nav:\n  - Home: README.md\n  - Methods:\n    - Guide: docs/guide.md\n"
        settings = f"site_name: small\nhooks: [tools/site_pages.py]\n{checks[0]}\n{nav}"
        for path, text in {"mkdocs.yml": settings, **pages}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stderr

    return run


SMALL = {
    "README.md": "# Small\n\n[guide](docs/guide.md#first), ![figure](docs/figure.svg)\n",
    "docs/guide.md": "# Guide\n\n## First\n\n[up](../README.md), [code](../src/code.py), [system](systems/one.md)\n",
    "docs/figure.svg": "<svg/>",
    "docs/systems/one.md": "# One\n",
    "src/code.py": "pass\n",
}


def test_pages_and_what_they_link_to_are_on_the_site(build, tmp_path: Path):
    status, said = build(SMALL)
    assert status == 0, said
    site = tmp_path / "site"
    for path in ("index.html", "docs/guide/index.html", "docs/systems/one/index.html", "docs/figure.svg", "src/code.py"):
        assert (site / path).is_file(), path
    assert "docs/systems/one/" in (site / "index.html").read_text(
        encoding="utf-8"
    )  # in the navigation, without a line there


@pytest.mark.parametrize(
    ("page", "link", "complaint"),
    [
        ("README.md", "[gone](docs/gone.md)", "docs/gone.md"),
        ("README.md", "[gone](docs/guide.md#second)", "second"),
        ("docs/guide.md", "[gone](../src/gone.py)", "src/gone.py"),
        ("docs/guide.md", "![gone](gone.svg)", "gone.svg"),
    ],
)
def test_a_link_that_leads_nowhere_fails_the_build(build, page, link, complaint):
    status, said = build({**SMALL, page: SMALL[page] + f"\n{link}\n"})
    assert status != 0 and complaint in said


def test_a_page_of_docs_that_is_in_no_section_fails_the_build(build):
    status, said = build({**SMALL, "docs/lost.md": "# Lost\n"})
    assert status != 0 and "docs/lost.md" in said

"""The hooks of pre-commit are the linters of the Makefile, from its environment."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_every_linter_is_a_hook_and_every_hook_a_linter():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipes = re.findall(r"^(?:lint|types):.*\n((?:\t.*\n)+)", makefile, flags=re.M)
    linters = {line.removesuffix(" .") for recipe in recipes for line in re.findall(r"\$\(BIN\)/(.+)", recipe)}
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repo["repo"] == "local"  # so that no hook is downloaded
    assert all(hook["language"] == "system" for hook in repo["hooks"])
    hooks = {hook["entry"].removeprefix(".venv/bin/").replace(" --force-exclude", "") for hook in repo["hooks"]}
    assert hooks == linters == {"ruff check", "ruff format --check", "lint-imports", "mypy"}

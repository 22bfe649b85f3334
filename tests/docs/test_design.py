"""The page on the design names only files that exist, and every package of the source."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/laconic"
PAGE = (ROOT / "docs/design.md").read_text(encoding="utf-8")


def named(page: str) -> set[str]:
    """Paths in a text: every Python file; in backticks, folders and other files. ``<site>``, ``<name>`` stand for any."""
    code = set(re.findall(r"`([\w<>./-]+(?:/|\.\w+))`", page))
    return {path for path in code if path.endswith("/") or re.search(r"\.(py|toml|md)$", path)} | set(
        re.findall(r"[\w/]+\.py\b", page)
    )


def exists(path: str) -> bool:
    """Whether there is such a file or folder under the source or the repository."""
    pattern = re.sub(r"<\w+>", "*", path.rstrip("/"))
    return any(True for root in (SOURCE, ROOT) for _ in root.glob(pattern))


def missing(page: str) -> list[str]:
    """Paths in a page that lead nowhere. A file name without a folder may be in a folder that the same line names."""
    wrong = []
    for line in page.splitlines():
        folders = re.findall(r"`([\w<>/]+/)`", line)
        for path in sorted(named(line)):
            inside = folders if "/" not in path else []
            if not exists(path) and not any(exists(folder + path) for folder in inside):
                wrong.append(path)
    return wrong


@pytest.mark.parametrize(
    "line", ["| `cache/base.py` | x |", "  tokens/pseudo.py", "| **`cache/`** | `figures.py` |", "| `stream/nothing/` | x |"]
)
def test_a_path_that_leads_nowhere_is_seen(line):
    assert missing(line)


@pytest.mark.parametrize(
    "line",
    [
        "session.py, step.py",
        "`methods/<site>/<name>.py`",
        "| **`fit/`** | `trainer.py` |",
        "| `cache/parts/` | dense (`base.py`) |",
        "`tests/helpers/`",
    ],
)
def test_a_path_that_is_there_passes(line):
    assert not missing(line)


def test_every_path_leads_somewhere():
    assert not missing(PAGE)


def test_every_package_and_module_at_the_top_is_there():
    parts = [path.name + "/" for path in SOURCE.iterdir() if (path / "__init__.py").exists()]
    parts += [path.name for path in SOURCE.glob("*.py")]
    absent = [part for part in parts if f"`{part}" not in PAGE]
    assert not absent, absent

"""LEADERBOARD.md from a finished bench of made-up rows."""

import json

import pytest
from helpers.bench_tools import made_up

from laconic.bench.grid import Grid
from tools.pages import leaderboard, leaderboard_parts

METHODS = ("random", "snapkv", "kivi")
GRID = Grid(("single", "kvturns"), METHODS, leaderboard.KEEPS, (512,), tuple(leaderboard.TITLES), 4)


def row(cell):
    """snapkv answers everything, random nothing, kivi half; kivi has no row at 5 %."""
    right = {"none": 1, "snapkv": 1, "random": 0}.get(cell.method.partition(":")[0], cell.seed % 2)
    return made_up(cell, float(right)) | {"turn_scores": [1.0, 0.0, 1.0, 0.0, float(right)]}


@pytest.fixture
def page(tmp_path, monkeypatch):
    cells = [c for c in GRID.cells() if (c.method, c.keep) != ("kivi", 0.05)]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row(c)) + "\n" for c in cells))
    for module, name in ((leaderboard, "ROOT"), (leaderboard, "DOCS"), (leaderboard_parts, "RESULTS")):
        monkeypatch.setattr(module, name, tmp_path)
    leaderboard.main(tmp_path)
    return tmp_path


def test_methods_are_in_order_with_their_marks(page):
    text = (page / "LEADERBOARD.md").read_text()
    for title in leaderboard.TITLES.values():
        section = text.split(f"## {title}\n")[1].split("\n## ")[0]
        rows = [line for line in section.splitlines() if line.startswith("| `")]
        assert [line.split("`")[1] for line in rows] == ["snapkv", "kivi", "random"]
        assert rows[0].startswith("| `snapkv` | q | 100 [100, 100] |") and rows[1].endswith("| - |")
        assert rows[2].count("0 [0, 0] ▼") == 4, "random is worse than snapkv"
    assert "(kivi 5 %)" in text and "Uncompressed: 100 [100, 100]." in text


def test_tables_and_the_figure_are_written(page):
    assert {p.name for p in page.iterdir()} == {
        *("results.jsonl", "LEADERBOARD.md", "leaderboard.svg", "leaderboard.json", "leaderboard.md")
    }
    assert (page / "leaderboard.svg").read_text().count(">100<") > len(leaderboard.TITLES)
    lines = json.loads((page / "leaderboard.json").read_text())["lines"]
    assert {line["method"] for line in lines} == {"none", *METHODS}

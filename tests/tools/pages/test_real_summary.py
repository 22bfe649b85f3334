"""The short table of README and findings."""

import json

import pytest
from helpers.bench_tools import made_up

from laconic.bench.grid import Grid
from laconic.bench.summary import summarise
from tools.pages import parts, real_summary

GRID = Grid(("facts",), ("random", "kvzip", "snapkv"), (), (real_summary.LENGTH,), ("later", "in view"), 2)


@pytest.fixture
def lines(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "RESULTS", tmp_path)
    return summarise([made_up(cell, 0.5 if cell.method == "kvzip" else 1.0) for cell in GRID.cells()])


def test_rows_are_the_picks_that_were_measured(lines):
    rows = real_summary.short(lines).splitlines()
    assert rows[0] == "| cache | question | answers right, % | KV bytes |"
    assert rows[2].startswith("| uncompressed |  | 100 |")
    assert rows[3].startswith("| `kvzip` 25 % | later | 50 [50, 50] | 250 KiB |")
    assert sum("snapkv" in row for row in rows) == 2 and not any("attention_matching" in row for row in rows)


def test_times_stand_beside_what_was_timed(lines, tmp_path):
    rows = [{"method": "none", "first": 1.5, "token": 0.06}, {"method": "kvzip:keep=0.25", "first": 4.25, "token": 0.04}]
    (tmp_path / "real-times.json").write_text(json.dumps({"rows": rows}))
    found = real_summary.short(lines).splitlines()
    assert found[0].endswith("| time to first token | per token |")
    assert found[2].endswith("| 1.50 s | 60 ms |") and found[3].endswith("| 4.25 s | 40 ms |")
    assert found[4].endswith("|  |  |"), "another budget was not timed"


def test_only_what_is_between_the_marks_changes(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{real_summary.BEGIN}\nold\n{real_summary.END}\nafter\n")
    for text in ("new", "newer"):
        real_summary.insert(page, text)
        assert page.read_text() == f"before\n{real_summary.BEGIN}\n{text}\n{real_summary.END}\nafter\n"
    page.write_text("no marks")
    real_summary.insert(page, "new")
    assert page.read_text() == "no marks"

"""The first part of LEADERBOARD.md from a bench of made-up rows; the second part stays."""

import gzip
import json

import pytest
from helpers.bench_tools import made_up

from laconic.bench.grid import Grid
from tools.pages import leaderboard_parts, leaderboard_real

METHODS = ("random", "snapkv", "kivi")
GRID = Grid(("facts",), METHODS, (), (1024, 2048), ("later", "in view"), 20)


def row(cell, right):
    score = {"none": 0.8, "snapkv": 1, "random": 0}.get(cell.method, cell.seed % 2) if right else 0.2
    made = made_up(cell, float(score)) | {"asked_turns": [0, 1, 5, 7, *([6, 4] if cell.mode == "later" else [])]}
    made["settings"] |= {"data": "a library"}
    return made | ({"kv_bytes": made["kv_bytes_full"] // 2} if cell.method == "kivi" else {})


def continued(cell):
    """Half a nat lost by random at every budget, none by the others."""
    nll = 2.5 + 0.5 * (cell.method == "random")
    return made_up(cell, 0.75) | {"nll": nll}


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(leaderboard_real, "ROOT", tmp_path)
    monkeypatch.setattr(leaderboard_parts, "RESULTS", tmp_path)
    monkeypatch.setattr(leaderboard_real, "RESULTS", tmp_path)
    (tmp_path / "LEADERBOARD.md").write_text("# Leaderboard\n\nold\n\n# On the shipped model\n\nstays\n")

    def write(samples):
        cells = [c for c in GRID.changed(samples=samples).cells() if (c.method, c.keep) != ("kivi", 0.05)]
        rows = [row(c, (c.mode, c.length) != ("in view", 2048)) for c in cells]
        rows += [
            continued(c) for c in GRID.changed(tasks=("continuation",), modes=("later",), lengths=(1024,), samples=2).cells()
        ]
        (tmp_path / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        leaderboard_real.main(tmp_path)
        return (tmp_path / "LEADERBOARD.md").read_text()

    return write


def test_methods_are_in_order_with_their_marks_and_questions(page):
    text = page(20)
    later = text.split("## The question comes later, 1,024 tokens\n")[1].split("\n## ")[0]
    rows = [line for line in later.splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in rows] == ["snapkv", "kivi", "random"]
    assert rows[0] == "| `snapkv` | q |" + " 100 [100, 100] |" * 4 + " 120 |"
    assert "(50 %) | - | 120 |" in rows[1] and rows[2].count("0 [0, 0] |") == 4
    assert "Uncompressed: 80 [80, 80] of 120 questions about 20 documents." in later
    assert "Not finished" not in text


def test_the_rows_are_kept_beside_the_tables(page, tmp_path):
    page(2)
    kept = (tmp_path / "leaderboard-real.jsonl.gz").read_bytes()
    assert gzip.decompress(kept) == (tmp_path / "results.jsonl").read_bytes()
    page(2)
    assert (tmp_path / "leaderboard-real.jsonl.gz").read_bytes() == kept


def test_sections_that_the_model_itself_does_not_answer_are_left_out(page):
    text = page(20).split("## The question is in view, 2,048 tokens\n")[1].split("\n## ")[0]
    assert "under 60% itself" in text and "| `" not in text


def test_what_is_not_finished_says_so(page):
    assert "**Not finished**: so far 18 of 120 questions later at 1,024 tokens" in " ".join(page(3).split())


def test_a_document_that_is_not_finished_is_left_out(page, tmp_path):
    page(3)
    lines = (tmp_path / "results.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_text("".join(line for line in lines if "later/kivi/0.25/1000002" not in line))
    leaderboard_real.main(tmp_path)
    text = (tmp_path / "LEADERBOARD.md").read_text()
    assert "of 12 questions about 2 documents" in text and "so far 12 of 120 questions later" in " ".join(text.split())


def test_the_other_part_of_the_page_stays(page, tmp_path):
    text = page(3)
    assert text.startswith("# Leaderboard\n\nOn a real model") and "old" not in text
    assert text.endswith("\n\n# On the shipped model\n\nstays\n")
    again = leaderboard_parts.compose(tmp_path / "LEADERBOARD.md", shipped="# On the shipped model\n\nnew")
    assert again == text.replace("stays", "new")


def test_continuations_stand_at_the_end_the_least_loss_first(page):
    table = page(3).split("## How a document goes on\n")[1].split("\n# ")[0]
    assert "2 documents of 1,024 tokens" in table and "uncompressed: 2.50 nats" in table
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert rows[-1] == "| `random` |  |" + " +0.50 / 75 |" * 4 and rows[0].count("+0.00 / 75") == 4


def test_the_tables_are_checked_in(page, tmp_path):
    page(3)
    lines = json.loads((tmp_path / "leaderboard-real.json").read_text())["lines"]
    assert {line["method"] for line in lines} == {"none", *METHODS} and (tmp_path / "leaderboard-real.md").exists()

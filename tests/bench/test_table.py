"""From made-up rows to lines, and the table word for word."""

import io
from pathlib import Path

import pytest
from helpers.bench_tools import made_up
from rich.console import Console

from laconic.bench.grid import Grid
from laconic.bench.summary import summarise
from laconic.bench.table import foot, markdown, milliseconds, rich_table, sections, size

GRID = Grid(("single", "multikey"), ("random", "snapkv:window=16"), (0.5, 0.1), (512,), ("agnostic",), 4)
GOLDEN = Path(__file__).with_name("golden_table.md")


def rows(grid=GRID):
    """Uncompressed is always right, snapkv at every other sample, random never, but for multikey's first sample."""
    found = []
    for cell in grid.cells():
        first = cell.task == "multikey" and cell.seed == 1_000_000
        score = {"none": 1.0, "random": float(first)}.get(cell.method, float(cell.seed % 2 == 0))
        found.append(made_up(cell, score))
    return found


@pytest.fixture(scope="module")
def lines():
    return summarise(rows())


def test_lines_group_and_order(lines):
    assert [(x.method, x.keep) for x in lines] == [
        ("none", 1.0),
        ("random", 0.5),
        ("random", 0.1),
        ("snapkv:window=16", 0.5),
        ("snapkv:window=16", 0.1),
    ]
    assert all(x.samples == 8 for x in lines)


def test_means_count_every_task_the_same(lines):
    uneven = [r for r in rows() if not (r["task"] == "multikey" and r["seed"] > 1_000_000)]
    random = summarise(uneven)[1]
    assert random.tasks["multikey"].mean == 1 and random.tasks["single"].mean == 0 and random.mean.mean == 0.5


def test_gain_is_paired_by_sample(lines):
    snap = lines[3]
    gain = snap.gains["random"]
    assert gain.against == "random 0.5" and gain.fair
    assert gain.interval.mean == pytest.approx(0.5 - 0.125)
    # differences: single 1 0 1 0, multikey 0 0 1 0
    assert -0.01 < gain.interval.low < 0.15 and 0.6 < gain.interval.high < 0.9
    assert set(snap.gains) == {"random"} and set(lines[1].gains) == {"snapkv"} and not lines[0].gains
    assert lines[1].gains["snapkv"].interval.mean == pytest.approx(0.125 - 0.5)


def test_the_reference_is_the_one_of_equal_bytes_and_a_gap_is_flagged():
    changed = rows()
    for row in changed:
        if row["method"].startswith("snapkv") and row["keep"] == 0.5:
            row["kv_bytes"] = int(0.12 * row["kv_bytes_full"])  # asked for a half, kept a tenth
    snap = next(x for x in summarise(changed) if x.method.startswith("snapkv") and x.keep == 0.5)
    assert snap.gains["random"].against == "random 0.1" and not snap.gains["random"].fair
    assert "†" in markdown([snap])


def test_sections_by_mode_and_length():
    grid = Grid(("single",), ("random",), (0.5,), (256, 512), ("aware", "agnostic"), 2)
    found = summarise([made_up(cell, 1.0) for cell in grid.cells()])
    assert sections(found) == [("aware", 256), ("agnostic", 256), ("aware", 512), ("agnostic", 512)]
    assert markdown(found).count("## mode") == 4


def test_json_keys_are_stable(lines):
    assert list(lines[3].as_dict()) == [
        *("mode", "length", "method", "keep", "query_aware", "parameters", "budget", "samples", "tasks", "exact", "mean"),
        *(
            "turns",
            "asked",
            "achieved",
            "kv_bytes",
            "kv_bytes_full",
            "kv_share",
            "flops_share",
            "flops_whole",
            "peak_memory",
            "seconds",
        ),
        "gains",
    ]


def test_markdown_word_for_word(lines):
    assert markdown(lines) == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_terminal_table_fits_and_says_what_it_left_out(lines, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(rich_table(lines, ("agnostic", 512), width))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "snapkv:window=16" in text and "vs random" in text and "50 [12, 88]" in text
    assert ("only in table.md" in " ".join(text.split())) == (width < 200)


def test_small_helpers():
    assert [size(n) for n in (0, 512, 2048, 300 * 1024, 5 * 2**20)] == ["0 B", "512 B", "2.0 KiB", "300 KiB", "5.0 MiB"]
    assert [milliseconds(s) for s in (None, 0.0012, 0.25)] == ["-", "1.2 ms", "250 ms"]


def test_the_foot_says_that_the_chat_template_is_applied(lines):
    assert "chat template is always applied" in foot(lines)

"""Differences at equal achieved FLOPs, from made-up rows."""

from helpers.image_tools import made_up

from laconic.bench.summary import summarise
from tools.pages.paired import rivals, worth

RUNS = [
    ("none", 1.0, 1000, 10),
    ("divprune", 0.5, 500, 8),
    ("divprune", 0.1, 104, 2),
    ("hicom", 0.5, 500, 9),
    ("hicom", 0.1, 100, 7),
    ("hicom", 0.05, 50, 5),
]
"""Method, share, FLOPs of 1,000, right answers of ten."""
LINES = summarise([made_up(m, k, n, float(n < right), flops=f) for m, k, f, right in RUNS for n in range(10)], 0)
KEEPS = (0.5, 0.1, 0.05)


def test_a_row_has_the_difference_at_each_share():
    cells = rivals(LINES, {"hicom": ("divprune",)}, KEEPS, [("all", None)])[-1].split(" | ")
    assert cells[:2] == ["| `hicom`", "`divprune`"] and cells[2].startswith("+10 [0, 30]")
    assert cells[3].startswith("+50 [20, 80] ▲") and cells[3].endswith("†")  # 104 is as low as the rival goes
    assert cells[4].startswith("-")  # and twice 50


def test_a_rival_that_did_not_run_has_no_row():
    assert len(rivals(LINES, {"hicom": ("fastv",)}, KEEPS, [("all", None)])) == 2


def test_parts_of_the_samples_have_a_column_of_their_own():
    few = {("colour", seed) for seed in range(8, 10)}
    head, _, *rows = rivals(LINES, {"hicom": ("divprune",)}, KEEPS, [("all", None), ("few", few)])
    assert "| samples |" in head and [row.split(" | ")[2] for row in rows] == ["all", "few"]
    assert rows[1].split(" | ")[3].startswith("+50")


def test_only_trained_methods_have_to_be_worth_it():
    assert [row.split("`")[1] for row in worth(LINES, ("divprune",), KEEPS, [("all", None)]) if row[:3] == "| `"] == [
        "hicom"
    ]
    free = [line for line in LINES if line.method != "hicom"]
    assert worth(free, ("divprune",), KEEPS, [("all", None)]) == []

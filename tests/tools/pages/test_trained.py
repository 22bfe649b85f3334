"""benchmarks/results/trained-images.md from a finished bench of made-up rows."""

import json

from helpers.image_tools import made_up

from tools.pages import leaderboard_parts, trained

RUNS = [
    ("none", 1.0, 1000, 10),
    ("divprune", 0.5, 500, 8),
    ("divprune", 0.1, 104, 2),
    ("hicom:tokens=20", 0.5, 500, 9),
    ("oryx:tokens=9", 0.1, 100, 7),
]
"""Method, share, FLOPs of 1,000, right answers of ten."""


def test_a_row_for_each_size_of_a_trained_method(tmp_path, monkeypatch):
    rows = [made_up(m, k, n, float(n < right), flops=f) for m, k, f, right in RUNS for n in range(10)]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for module in (trained, leaderboard_parts):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    trained.main(tmp_path)
    text = (tmp_path / "trained-images.md").read_text()
    first, second = [x.split(" | ") for x in text.splitlines() if x.startswith(("| `hicom", "| `oryx"))][:2]
    assert "| vs `divprune` |" in text and "10 scenes for each of 1 kinds" in text
    assert first[0] == "| `oryx:tokens=9`" and first[2:4] == ["10.0 %", "70 [40, 100]"] and "+50 [20, 80] ▲ †" in first[4]
    assert second[0] == "| `hicom:tokens=20`" and second[4].startswith("+10 [0, 30]")

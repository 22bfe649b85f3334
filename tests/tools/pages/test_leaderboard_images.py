"""docs/leaderboard-images.md from a finished bench of made-up rows."""

import json

import pytest
from helpers.image_tools import made_up

from tools.pages import leaderboard_images, leaderboard_parts

RIGHT = {"random_visual": 4, "fastv": 9, "fitprune": 10, "llava_mini": 7}
"""Method -> right answers of ten."""


@pytest.fixture
def text(tmp_path, monkeypatch):
    runs = [("none", 1.0, 1000, 10)]
    runs += [(m, k, int(1000 * k), right) for m, right in RIGHT.items() for k in leaderboard_images.KEEPS]
    runs.remove(("fastv", 0.055, 55, 9))
    rows = [made_up(m, k, n, float(n < right), flops=f, hard=n % 2 == 0) for m, k, f, right in runs for n in range(10)]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for module, name in ((leaderboard_images, "DOCS"), (leaderboard_parts, "RESULTS")):
        monkeypatch.setattr(module, name, tmp_path)
    leaderboard_images.main(tmp_path)
    assert (tmp_path / "leaderboard-images.svg").exists() and (tmp_path / "leaderboard-images.json").exists()
    return (tmp_path / "leaderboard-images.md").read_text()


def test_methods_are_in_order_with_their_marks(text):
    rows = [x for x in text.split("## All samples")[1].split("## The hard part")[0].splitlines() if x.startswith("| `")]
    assert [x.split("`")[1] for x in rows] == ["fitprune", "fastv", "llava_mini", "random_visual"]
    assert rows[0].count("100 [100, 100] ▲") == 4 and "▲" not in rows[3] and rows[1].endswith("| - |")
    assert "(`fastv` at 5.5 %)" in text and "5 of 10 samples" in text


def test_a_method_is_compared_with_the_baselines_of_its_paper(text):
    section = text.split("## Against the baselines")[1].split("\n## ")[0]
    (row,) = [x for x in section.splitlines() if x.startswith("| `fitprune` | `fastv` | all |")]
    assert row.split(" | ")[3:6] == ["+10 [0, 30]"] * 3


def test_what_a_method_takes_is_shown_at_every_share(text):
    section = text.split("## What the methods take")[1].split("\n## ")[0]
    assert "| `fastv` | 50.0 % | 25.0 % | 11.0 % | - |" in section


def test_kinds_of_question_have_their_hard_part(text):
    section = text.split("## Kinds of question at 50 %")[1].split("\n## ")[0]
    assert "| `fastv` | 90 [70, 100] / 100 |" in section


def test_trained_methods_stand_beside_training_free_ones(text):
    section = text.split("## Is training worth it?")[1].split("\n## ")[0]
    rows = [x for x in section.splitlines() if x.startswith("| `")]
    assert [x.split(" | ")[:3] for x in rows] == [["| `llava_mini`", "`fastv`", part] for part in ("all", "hard")]
    assert rows[0].split(" | ")[3] == "-20 [-50, 0]" and "divprune" not in section

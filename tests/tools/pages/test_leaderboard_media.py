"""docs/leaderboard-videos.md and -sounds.md from finished benches of made-up rows."""

import json

import pytest
from helpers.image_tools import made_up

from tools.pages import leaderboard_media, leaderboard_parts

RIGHT = {"video": {"random_visual": 4, "evs": 9}, "audio": {"random_audio": 4, "audio_pool": 9}}
TASKS = {"video": ("clip_first_8", "videos"), "audio": ("sound_order", "sounds")}


@pytest.fixture(params=list(RIGHT))
def page(request, tmp_path, monkeypatch):
    modality = request.param
    task, mode = TASKS[modality]
    runs = [("none", 1.0, 1000, 10)]
    runs += [(m, k, int(1000 * k), right) for m, right in RIGHT[modality].items() for k in (0.5, 0.1)]
    runs.pop()  # the better one does not reach a tenth
    rows = [made_up(m, k, n, float(n < right), flops=f) for m, k, f, right in runs for n in range(10)]
    rows = [{key: value for key, value in row.items() if key != "hard"} | {"task": task, "mode": mode} for row in rows]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for module, name in ((leaderboard_media, "DOCS"), (leaderboard_parts, "RESULTS")):
        monkeypatch.setattr(module, name, tmp_path)
    leaderboard_media.main(tmp_path)
    assert (tmp_path / f"leaderboard-{mode}.svg").exists() and (tmp_path / f"leaderboard-{mode}.json").exists()
    return modality, (tmp_path / f"leaderboard-{mode}.md").read_text()


def test_methods_are_in_order_with_their_marks(page):
    modality, text = page
    filler, better = RIGHT[modality]
    table = text.split("## All kinds of question")[1].split("\n## ")[0]
    rows = [x for x in table.splitlines() if x.startswith("| `")]
    assert [x.split("`")[1] for x in rows] == [better, filler]
    assert "90 [70, 100] ▲" in rows[0] and rows[0].endswith("| - |") and f"`{better}` at 10 %" in text


def test_kinds_of_question_and_costs_are_shown(page):
    modality, text = page
    filler, better = RIGHT[modality]
    kinds = text.split("## Kinds of question at 50 %")[1]
    assert ("first 8" if modality == "video" else "order") in kinds and f"| `{better}` | 90 [70, 100] |" in kinds
    assert f"| `{filler}` | 50.0 % | 10.0 % |" in text.split("## What the methods take")[1]

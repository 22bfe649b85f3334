"""The page of the leaderboard for thinking: right answers first, and of equals the shorter thinking."""

from tools.pages.leaderboard_reasoning import page


def row(method, right, written, task="sums"):
    facts = {"low": right / 2, "high": 1.0, "n": 10, "latent": 0.0, "closed": 1.0}
    return {"task": task, "method": method, "right": right, "written": written, **facts}


def test_rows_are_in_order_and_refused_ones_are_left_out():
    rows = [row("a", 0.5, 9), row("b", 0.9, 40), row("c", 0.9, 20), {"task": "sums", "method": "d", "refused": "no"}]
    said = page([*rows, row("a", 0.25, 3, "lists")])
    places = [said.index(f"`{name}` | {right}") for name, right in (("c", 90.0), ("b", 90.0), ("a", 50.0), ("a", 25.0))]
    assert places == sorted(places) and "`d`" not in said
    assert "| `c` | 90.0 | 45.0 to 100.0 | 10 | 20.0 | 0.0 | 100.0 |" in said
    assert said.index("## sums") < said.index("## lists")

"""The page of the leaderboard of memories: a table for each rate and length, the best first, and controls beside."""

from tools.pages.leaderboard_memories import page


def row(method, right, keep=0.5, facts=16, **more):
    told = {"method": method, "keep": keep, "facts": facts, "right": right, "low": 0.2, "high": 0.9, "n": 100}
    return {**told, "flops": 1.5, "kv_bytes": 4096, **more}


def test_rates_then_lengths_then_the_best():
    rows = [
        row("none", 0.1),
        row("icae", 0.75, swapped=0.125),
        row("icae", 0.5, 0.25),
        row("full", 1.0),
        row("full", 1, facts=64),
    ]
    said = page(rows)
    wanted = [
        "## 2x, 16 facts",
        "| `full` | 100.0",
        "| `icae` | 75.0",
        "| `none` | 10.0",
        "## 2x, 64 facts",
        "## 4x, 16 facts",
    ]
    places = [said.index(text) for text in wanted]
    assert places == sorted(places)
    assert (
        "| `icae` | 75.0 | 20.0 to 90.0 | 12.5 | 4.1 | 1.50 |" in said and "| `none` | 10.0 | 20.0 to 90.0 |  | 4.1" in said
    )


def test_what_was_refused_says_why():
    said = page([row("full", 1.0), {"method": "x", "keep": 0.5, "facts": 16, "refused": "x: too small."}])
    assert said.endswith("Not measured:\n\n* `x`: x: too small.\n")

"""The page of the leaderboard for weights: one table for each model, smaller weights alone before those beside a cache."""

from tools.pages.leaderboard_weights import page


def row(weights, perplexity, cache=None, model="m", seconds=None):
    facts = {"right": 0.5, "low": 0.25, "high": 0.75, "questions": 8, "bytes": 2_500_000, "task": "needles", "tokens": 256}
    told = {"model": model, "weights": weights, "cache": cache, "keep": 0.5 if cache else 1.0, "data": "texts"}
    return {**told, **facts, "perplexity": perplexity, "seconds": seconds}


def test_rows_are_in_order_and_refused_ones_say_why():
    refused = {"model": "m", "weights": "reap", "cache": None, "refused": "reap: it is dense."}
    rows = [
        row("half", 9, "snapkv"),
        row("half", 8),
        refused,
        row("dense", 5),
        row("dense", 6, "snapkv"),
        row("dense", 1, model="n"),
    ]
    said = page(rows, [])
    wanted = [
        "| `dense` |  |",
        "| `half` |  |",
        "| `dense` | `snapkv`, 50% |",
        "| `half` | `snapkv`, 50% |",
        "* `reap`: reap: it is",
        "## n",
    ]
    places = [said.index(text) for text in wanted]
    assert places == sorted(places) and said.count("\n|---|") == 2
    assert "| `half` |  | 50.0 | 25.0 to 75.0 | 8 | 8.00 | 2.5 | not timed |" in said


def test_seconds_are_shown_where_they_were_measured():
    assert "| 1.00 | 2.5 | 0.31 |" in page([row("dense", 1, seconds=0.3125)], [])


def test_a_model_that_fits_nothing_has_no_table():
    said = page([{"model": "m", "weights": "reap", "cache": None, "refused": "reap: it is dense."}], [])
    assert "|---|" not in said and said.endswith("* `reap`: reap: it is dense.\n")


def test_mixtures_are_in_the_order_of_their_surprise():
    told = {"right": 0.5, "low": 0.25, "high": 0.75, "questions": 8, "parameters": 1_500_000}
    said = page(
        [row("dense", 1)], [{"method": "few", "entropy": 1.25, **told}, {"method": "dense", "entropy": 1.02, **told}]
    )
    assert (
        said.index("## testbed/moe")
        < said.index("| dense | 1.50 | 1.020 | 50.0 | 25.0 to 75.0 | 8 |")
        < said.index("| few |")
    )

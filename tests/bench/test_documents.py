"""A bench over documents: rows, resuming, and what is left out."""

import pytest

from laconic.bench.grid import Grid
from laconic.bench.runner import Bench
from laconic.bench.store import Store
from laconic.bench.summary import summarise
from laconic.bench.table import markdown
from laconic.errors import BudgetError

GRID = Grid(("continuation",), ("random", "snapkv:window=8"), (1.0, 0.2), (256,), ("later",), 2)


@pytest.fixture(scope="module")
def rows(tiny_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("documents") / "results.jsonl"
    with Store(path) as store:
        bench = Bench(*tiny_model, "tiny", GRID)
        bench.run(store)
        assert not bench.failures and not bench.pending(store)
        return dict(store.rows)


def test_rows_say_that_they_come_from_a_recording_and_have_no_times(rows):
    assert list(rows) == [cell.key for cell in GRID.cells()]
    for row in rows.values():
        assert row["recorded"] == (row["method"] != "none")
        assert row["seconds_first_token"] is row["seconds_per_token"] is row["seconds_compress"] is None
        assert row["settings"]["data"].startswith("Python 3.") and row["nll"] > 0
        assert row["machine"]


def test_at_the_neutral_budget_nothing_changes(rows):
    for row in rows.values():
        whole = rows[f"continuation/256/later/none/1/{row['seed']}"]
        if row["keep"] == 1.0:
            assert row["score"] == 1.0 and row["nll"] == pytest.approx(whole["nll"], abs=1e-5)
            assert row["kv_bytes"] == row["kv_bytes_full"] == whole["kv_bytes"]
        else:
            assert row["kv_bytes"] == pytest.approx(0.2 * row["kv_bytes_full"], rel=0.05)
            assert row["nll"] != whole["nll"]


def test_the_rows_become_a_table(rows):
    lines = summarise(rows.values())
    assert {line.method for line in lines} == {"none", "random", "snapkv:window=8"}
    assert "question later, 256 tokens" in markdown(lines)


def test_what_the_uncompressed_model_does_not_answer_is_not_asked(tiny_model, tmp_path):
    with Store(tmp_path / "results.jsonl") as store:
        bench = Bench(*tiny_model, "tiny", GRID.changed(tasks=("facts",), samples=1))
        bench.run(store)
        assert [row["method"] for row in store.rows.values()] == ["none"]
    assert len(bench.failures) == 4
    assert all("answers none of its questions" in message for _, message in bench.failures)


def test_a_continuation_has_no_question_to_put_in_view():
    with pytest.raises(BudgetError, match="nothing to run"):
        GRID.changed(modes=("in view",)).check()

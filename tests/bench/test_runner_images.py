"""The runner over images: rows, batches, hard samples, refusals, and going on after a kill."""

import json

import pytest
from helpers import image_formats as formats
from helpers.bench_tools import tiny

from laconic.bench.grid import Grid
from laconic.bench.outputs import write_outputs
from laconic.bench.runner import Bench
from laconic.bench.store import Store, StoreError
from laconic.engine.engine import Engine
from laconic.errors import UnsupportedModelError
from laconic.tasks.scenes.questions import make
from laconic.testbed.evaluate_vlm import marks

pytestmark = pytest.mark.usefixtures("token_methods")
GRID = Grid(("colour", "count"), ("test_first", "test_late"), keeps=(0.75, 0.25), samples=5)
MEASURED = ("seconds_first_token", "seconds_per_token", "seconds_compress", "seconds_encoder", "peak_memory")


def steady(row):
    """A row without what a clock or the process's memory says."""
    return {k: v for k, v in row.items() if k not in MEASURED}


def run(vlm, path, grid=GRID, batch=4, each=lambda cell: None):
    bench = Bench(*vlm, "small", grid, batch=batch)
    with Store(path) as store:
        bench.run(store, each)
        return bench, dict(store.rows)


@pytest.fixture(scope="module")
def whole(vlm, tmp_path_factory):
    """An uninterrupted run."""
    return run(vlm, tmp_path_factory.mktemp("whole") / "results.jsonl")


def test_there_is_a_row_for_every_cell_that_was_not_refused(whole):
    bench, rows = whole
    assert set(rows) == {cell.key for cell in bench.cells()} and not bench.failures
    assert len(rows) == 10 * (1 + 3)


def test_a_budget_that_a_method_cannot_reach_is_left_out_and_named(whole):
    bench, rows = whole
    assert set(bench.refused) == {("test_late", 0.25)}
    assert "cannot be reached" in bench.refused["test_late", 0.25]
    assert not any(row["method"] == "test_late" and row["keep"] == 0.25 for row in rows.values())


def test_a_row_says_everything(whole):
    for row in whole[1].values():
        json.dumps(row, allow_nan=False)
        assert row["mode"] == "images" and row["task"] in GRID.tasks and row["seed"] >= 1_000_000
        assert row["score"] in (0.0, 1.0) and isinstance(row["hard"], bool) and 1 <= row["batch"] <= 4
        total = row["prefill_flops"] + row["method_flops"]
        assert row["flops_share"] == pytest.approx(total / row["prefill_flops_full"])
        assert row["settings"]["answer_prefix"] is False and row["settings"]["new_tokens"] == 6
        if row["method"] == "none":
            assert row["achieved"] == row["flops_share"] == 1
        else:
            assert row["achieved"] == pytest.approx(row["keep"], abs=0.01) and row["visual_tokens"] == 144
            assert row["flops_share"] < 1 and row["settings"]["budget"] == f"keep={row['keep']:g}"


def test_equal_kept_means_are_nearly_equal_flops(whole):
    shares = {}
    for row in whole[1].values():
        if row["keep"] == 0.75:
            shares.setdefault(row["seed"], set()).add(round(row["flops_share"], 2))
    assert all(max(found) - min(found) <= 0.02 for found in shares.values())


def test_scores_are_of_the_whole_answer(whole):
    for row in whole[1].values():
        assert row["score"] == float(row["output"] == row["answers"][0])


def test_hard_samples_are_those_of_the_model_card(vlm, whole):
    for task in GRID.tasks:
        found = {row["seed"]: row["hard"] for row in whole[1].values() if row["task"] == task}
        survived = marks(*vlm, [make(task, seed) for seed in sorted(found)])[1]
        assert [found[seed] for seed in sorted(found)] == [not right for right in survived]


def test_a_batch_holds_equally_long_prompts(vlm, monkeypatch, tmp_path):
    seen = []
    real = Engine.answer_batch

    def watching(engine, inputs, request):
        seen.append(inputs)
        return real(engine, inputs, request)

    monkeypatch.setattr(Engine, "answer_batch", watching)
    run(vlm, tmp_path / "results.jsonl", GRID.changed(methods=("none",)))
    assert all(bool(inputs["attention_mask"].all()) for inputs in seen)
    assert max(len(inputs["input_ids"]) for inputs in seen) > 1


@pytest.mark.slow
@pytest.mark.parametrize(("finished", "torn"), [(0, False), (1, True), (9, False), (30, True)])
def test_a_run_goes_on_where_it_was_killed(vlm, whole, tmp_path, finished, torn):
    lines = [json.dumps(row) + "\n" for row in whole[1].values()]
    path = tmp_path / "results.jsonl"
    path.write_text("".join(lines[:finished]) + (lines[finished][:50] if torn else ""))
    ran = []
    bench, rows = run(vlm, path, each=lambda cell: ran.append(cell.key))
    assert {key: steady(row) for key, row in rows.items()} == {key: steady(row) for key, row in whole[1].items()}
    refused = {cell.key for cell in GRID.cells() if (cell.method, cell.keep) in bench.refused}
    assert set(ran) == (set(whole[1]) - set(list(whole[1])[:finished])) | refused


def test_a_finished_run_asks_nothing(vlm, whole, tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in whole[1].values()))
    seen = []
    monkeypatch.setattr(Bench, "rows", lambda *a: seen.append(a))
    run(vlm, path)
    assert not seen


def test_other_settings_or_data_are_refused(vlm, whole, tmp_path):
    path = tmp_path / "results.jsonl"
    text = "".join(json.dumps(row) + "\n" for row in whole[1].values())
    for old, new, said in [
        ('"batch": 4,', '"batch": 5,', "batch: 5"),
        ('"new_tokens": 6', '"new_tokens": 7', "new_tokens: 7"),
    ]:
        settings = text.replace(f'"decoding": "greedy", {old}', f'"decoding": "greedy", {new}').replace(old, new)
        path.write_text(settings)
        with pytest.raises(StoreError, match=said):
            run(vlm, path)


def test_a_failing_method_leaves_no_row_and_is_tried_again(vlm, tmp_path, monkeypatch):
    real = Engine.answer_batch

    def failing(engine, inputs, request):
        if request.methods and request.methods[0].keep == 0.25:
            raise ValueError("not today")
        return real(engine, inputs, request)

    grid = GRID.changed(methods=("test_first",), samples=1)
    monkeypatch.setattr(Engine, "answer_batch", failing)
    bench, rows = run(vlm, tmp_path / "results.jsonl", grid)
    assert len(bench.failures) == 2 and bench.failures[0][1] == "not today" and len(rows) == 4
    monkeypatch.setattr(Engine, "answer_batch", real)
    bench, rows = run(vlm, tmp_path / "results.jsonl", grid)
    assert not bench.failures and len(rows) == 6


def test_a_public_benchmark_runs_from_its_files(vlm, tmp_path):
    """From files to the benchmark's own figures; images of other sizes than the model's."""
    grid = Grid(("mme",), ("test_first",), keeps=(0.25,), samples=100, folders=(("mme", formats.mme(tmp_path / "mme")),))
    bench, rows = run(vlm, tmp_path / "out" / "results.jsonl", grid)
    assert len(rows) == 8 * 2 and not bench.failures
    lines = write_outputs(list(rows.values()), tmp_path / "out")
    figures = lines[0].figures["mme"]
    assert {"perception", "cognition", "count", "artwork", "code_reasoning", "count acc+"} <= set(figures)
    assert "mme: its own figures" in (tmp_path / "out" / "table.md").read_text()
    assert "mme: its own figures" in (tmp_path / "out" / "report.html").read_text()
    assert str(tmp_path) not in "".join(json.dumps(row) for row in rows.values())


def test_a_model_without_images_is_refused():
    with pytest.raises(UnsupportedModelError, match="reads no images"):
        Bench(*tiny(), "text", GRID)

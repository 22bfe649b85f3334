import dataclasses
import json

import pytest
from helpers.bench_tools import GRID

from laconic.bench import chat
from laconic.bench.runner import Bench
from laconic.bench.store import Store, StoreError
from laconic.errors import UnsupportedModelError

NEEDED = {
    "key",
    "task",
    "length",
    "mode",
    "method",
    "query_aware",
    "keep",
    "seed",
    "score",
    "exact",
    "output",
    "answers",
    "asked",
    "achieved",
    "kv_bytes",
    "kv_bytes_full",
    "prefill_flops",
    "prefill_flops_full",
    "method_flops",
    "peak_memory",
    "seconds_first_token",
    "seconds_per_token",
    "seconds_compress",
    "settings",
    "machine",
}
MEASURED = ("seconds_first_token", "seconds_per_token", "seconds_compress", "peak_memory")


def steady(row):
    """A row without what a clock or the process's memory says."""
    return {k: v for k, v in row.items() if k not in MEASURED}


@pytest.fixture(scope="module")
def whole(tiny_model, tmp_path_factory):
    """Rows of an uninterrupted run, in order."""
    path = tmp_path_factory.mktemp("whole") / "results.jsonl"
    with Store(path) as store:
        Bench(*tiny_model, "tiny", GRID).run(store)
        return dict(store.rows)


def test_rows_are_the_cells_in_order(whole):
    assert list(whole) == [cell.key for cell in GRID.cells()]


def test_a_row_says_everything(whole):
    for row in whole.values():
        assert set(row) >= NEEDED
        json.dumps(row, allow_nan=False)
        settings = row["settings"]
        assert settings["chat_template"] == "applied"
        assert {"laconic", "torch", "transformers", "python"} <= set(settings["versions"])
        assert row["seed"] >= 1_000_000 and 0 <= row["score"] <= 1
        assert len(row["output"]) == len(row["answers"]) == (3 if row["mode"] == "turns" else 1)
        assert row["score"] == pytest.approx(sum(row["turn_scores"]) / len(row["turn_scores"]))


def test_parameters_and_awareness_come_from_the_catalogue(whole):
    row = next(r for r in whole.values() if r["method"].startswith("snapkv"))
    assert row["query_aware"] is True and row["settings"]["parameters"]["window"] == 8
    row = next(r for r in whole.values() if r["method"] == "random")
    assert row["query_aware"] is False


def test_asked_and_achieved_bytes(whole):
    for row in whole.values():
        share = row["kv_bytes"] / row["kv_bytes_full"]
        if row["method"] == "none":
            assert share == row["achieved"] == 1
            continue
        assert row["achieved"] == pytest.approx(row["keep"], abs=0.02)
        if row["mode"] == "aware":
            assert share == pytest.approx(row["keep"], abs=0.02)
        else:  # the question is stored whole
            question = row["tokens_prompt"] - row["tokens_compressed"]
            entries = int(row["keep"] * row["tokens_compressed"]) + question
            assert share == pytest.approx(entries / row["tokens_prompt"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("finished", [0, 1, 7, 29])
@pytest.mark.parametrize("torn", [False, True])
def test_a_run_goes_on_where_it_was_killed(tiny_model, whole, tmp_path, finished, torn):
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in whole.values()]
    path = tmp_path / "results.jsonl"
    path.write_text("".join(lines[:finished]) + (lines[finished][: len(lines[finished]) // 2] if torn else ""))
    ran = []
    with Store(path) as store:
        Bench(*tiny_model, "tiny", GRID).run(store, lambda cell: ran.append(cell.key))
        assert ran == list(whole)[finished:]
        assert [steady(r) for r in store.rows.values()] == [steady(r) for r in whole.values()]
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == list(whole)


def test_a_larger_grid_runs_only_what_is_new(tiny_model, whole, tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in whole.values()))
    with Store(path) as store:
        left = Bench(*tiny_model, "tiny", dataclasses.replace(GRID, keeps=(0.5, 0.25, 0.1))).pending(store)
    assert {cell.keep for cell in left} == {0.25}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["parameters"].update(window=9), "window"),
        (lambda s: s["versions"].update(laconic="0.0.9"), "0.0.9"),
        (lambda s: s.update(weights="cafe"), "weights: cafe in the file"),
        (lambda s: s.update(model="other"), "model: other in the file, tiny now"),
    ],
)
def test_other_settings_for_the_same_rows_are_refused(tiny_model, whole, tmp_path, change, said):
    rows = json.loads(json.dumps(list(whole.values())))
    change(next(r for r in rows if r["method"].startswith("snapkv"))["settings"])
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = path.read_bytes()
    with Store(path) as store, pytest.raises(StoreError, match=said):
        Bench(*tiny_model, "tiny", GRID).run(store)
    assert path.read_bytes() == before


def test_a_failing_method_leaves_no_row_and_is_tried_again(tiny_model, tmp_path, monkeypatch):
    real = chat.answer

    def failing(engine, sample, mode, method, *limits, **options):
        if method is not None and method.name == "random" and mode == "agnostic":
            raise ValueError("not today")
        return real(engine, sample, mode, method, *limits, **options)

    grid = dataclasses.replace(GRID, tasks=("single",), modes=("agnostic",), samples=1)
    with Store(tmp_path / "results.jsonl") as store:
        monkeypatch.setattr(chat, "answer", failing)
        bench = Bench(*tiny_model, "tiny", grid)
        bench.run(store)
        assert len(bench.failures) == 2 and len(store) == 3
        assert bench.failures[0][1] == "not today"
        monkeypatch.setattr(chat, "answer", real)
        again = Bench(*tiny_model, "tiny", grid)
        again.run(store)
        assert not again.failures and len(store) == 5


def test_what_a_method_cannot_do_is_left_out_and_said(tiny_model, tmp_path):
    methods = ("random", "minicache", "compresskv")
    grid = dataclasses.replace(GRID, tasks=("single",), modes=("agnostic",), methods=methods, keeps=(0.9, 0.1), samples=1)
    bench = Bench(*tiny_model, "tiny", grid)
    assert set(bench.refused) == {("minicache", 0.1), ("compresskv", 0.9), ("compresskv", 0.1)}
    assert "smallest share" in bench.refused["minicache", 0.1] and "laconic fit" in bench.refused["compresskv", 0.1]
    with Store(tmp_path / "results.jsonl") as store:
        bench.run(store)
        assert len(store) == 4 and not bench.failures and not bench.pending(store)


def test_a_tokenizer_without_chat_template_is_refused(tiny_model):
    class Bare:
        chat_template = None

    with pytest.raises(UnsupportedModelError, match="chat template"):
        Bench(tiny_model[0], Bare(), "bare", GRID)

"""The runner over sound: rows of samples in batches are those of each sample alone, and no sample is hard."""

import json

import pytest
import torch

from laconic.bench.asking import Asked
from laconic.bench.grid import Grid, Place
from laconic.bench.runner import Bench
from laconic.bench.sound import SoundAsking
from laconic.bench.store import Store
from laconic.errors import UnsupportedModelError
from laconic.method import create_method
from laconic.tasks import find_task
from laconic.testbed.audio_model import build_model, build_processor, build_tokenizer

GRID = Grid(("sound_count", "sound_after"), ("random_visual",), keeps=(0.5, 0.25), samples=3)


@pytest.fixture(scope="module")
def hearing():
    """A model with random weights that never ends its answer."""
    torch.manual_seed(0)
    model = build_model().eval().requires_grad_(False)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    return model, build_processor(build_tokenizer())


def test_rows(hearing, tmp_path):
    bench = Bench(*hearing, "small", GRID, batch=4)
    with Store(tmp_path / "results.jsonl") as store:
        bench.run(store, lambda cell: None)
        rows = dict(store.rows)
    assert set(rows) == {cell.key for cell in bench.cells()} and len(rows) == 6 * (1 + 2) and not bench.failures
    for row in rows.values():
        json.dumps(row, allow_nan=False)
        assert row["mode"] == "sounds" and row["seed"] >= 1_000_000 and row["score"] in (0.0, 1.0) and "hard" not in row
        if row["method"] == "none":
            assert row["flops_share"] == 1
            continue
        seconds = len(find_task(row["task"]).sample(row["seed"]).shown()[0]) / 16_000
        assert row["audio_tokens"] == pytest.approx(seconds / 0.08, abs=1.01)
        assert row["achieved"] == pytest.approx(row["keep"], abs=1 / row["audio_tokens"])


def test_every_method_for_audio_tokens_is_compared(hearing, tmp_path):
    bench = Bench(*hearing, "small", Grid(("sound_count",), ("all",), keeps=(0.25,), samples=1), batch=1)
    with Store(tmp_path / "results.jsonl") as store:
        bench.run(store, lambda cell: None)
        rows = dict(store.rows)
    kept = {row["method"]: row["achieved"] for row in rows.values() if row["keep"] == 0.25}
    assert not bench.failures and {"random_audio", "crop_audio", "audio_pool", "speechprune"} <= set(kept)
    assert all(share == pytest.approx(0.25, abs=0.03) for share in kept.values()), kept


@pytest.mark.parametrize("spec", [None, "random_visual:keep=0.25", "snapkv:keep=0.5,window=8"])
def test_answers_and_figures_are_those_of_a_sample_alone(hearing, spec):
    asking = SoundAsking(*hearing, "small", GRID, 16)
    task = find_task("sound_count")
    by_shape: dict[tuple, list] = {}
    for sample in task.samples(0, 80):
        asked = Asked(Place("sound_count", 0, "sounds", sample.number), task, sample, sample.shown())
        by_shape.setdefault(asking.shape(asking._inputs([asked])), []).append(asked)
    pair = max(by_shape.values(), key=len)[:2]
    assert len(pair) == 2
    method = spec and create_method(spec)
    together = asking._answer(pair, method, 4)
    for one, answer in zip(pair, together, strict=True):
        (alone,) = asking._answer([one], method, 4)
        assert answer.ids == alone.ids
        for figure in ("tokens_in", "kv_bytes", "kv_bytes_full", "prefill_flops", "achieved", "visual_in"):
            assert getattr(answer.prompt, figure) == pytest.approx(getattr(alone.prompt, figure), rel=1e-6), figure


def test_a_model_that_takes_no_sound_is_refused(vlm):
    with pytest.raises(UnsupportedModelError, match="small takes no sound; give a model that hears"):
        SoundAsking(*vlm, "small", GRID, 4)

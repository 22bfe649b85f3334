"""The runner over videos: rows of samples in batches are those of each sample alone."""

import pytest
import torch

from laconic.bench.asking import Asked
from laconic.bench.clips import ClipAsking
from laconic.bench.comparison import comparisons
from laconic.bench.grid import Grid, Place
from laconic.bench.runner import Bench
from laconic.bench.store import Store
from laconic.errors import UnsupportedModelError
from laconic.method import CATALOGUE, create_method
from laconic.tasks import find_task
from laconic.testbed.video_model import FRAME_TOKENS, build_processor, build_tokenizer, empty_model

GRID = Grid(("clip_first_4", "clip_reading_8"), ("uniform_frames", "random_visual"), keeps=(0.5,), samples=3)


@pytest.fixture(scope="module")
def seeing():
    """A model with random weights that never ends its answer."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    model = empty_model(tokenizer).eval().requires_grad_(False)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    return model, build_processor(tokenizer)


def test_rows(seeing, tmp_path):
    bench = Bench(*seeing, "small", GRID, batch=4)
    with Store(tmp_path / "results.jsonl") as store:
        bench.run(store, lambda cell: None)
        rows = dict(store.rows)
    assert set(rows) == {cell.key for cell in bench.cells()} and len(rows) == 6 * 3 and not bench.failures
    for row in rows.values():
        assert row["mode"] == "videos" and row["seed"] >= 1_000_000 and row["score"] in (0.0, 1.0) and "hard" not in row
        frames = 4 if row["task"] == "clip_first_4" else 8
        if row["method"] != "none":
            assert row["visual_tokens"] == frames * FRAME_TOKENS
            assert row["achieved"] == 0.5 and row["flops_share"] < 0.75


def test_methods_for_images_and_for_videos_are_compared():
    covered = {name for name, entry in CATALOGUE.items() if comparisons()["video"].covers(entry)}
    assert {"uniform_frames", "evs", "fastv", "random_visual"} <= covered and not {"audio_pool", "snapkv"} & covered


@pytest.mark.parametrize("spec", [None, "uniform_frames:keep=0.25", "snapkv:keep=0.5,window=8"])
def test_answers_and_figures_are_those_of_a_sample_alone(seeing, spec):
    asking = ClipAsking(*seeing, "small", GRID, 16)
    task = find_task("clip_reading_4")
    pair = [Asked(Place("clip_reading_4", 0, "videos", s.number), task, s, s.shown()) for s in task.samples(0, 2)]
    method = spec and create_method(spec)
    for one, answer in zip(pair, asking._answer(pair, method, 4), strict=True):
        (alone,) = asking._answer([one], method, 4)
        assert answer.ids == alone.ids
        for figure in ("tokens_in", "kv_bytes", "kv_bytes_full", "prefill_flops", "achieved", "visual_in"):
            assert getattr(answer.prompt, figure) == pytest.approx(getattr(alone.prompt, figure), rel=1e-6), figure


def test_a_model_without_a_video_input_is_refused(vlm):
    with pytest.raises(UnsupportedModelError, match="small has no video input; give a model that has one"):
        ClipAsking(*vlm, "small", GRID, 4)

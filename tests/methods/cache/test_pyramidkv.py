"""PyramidKV: window scores, and a budget that falls from layer to layer with an exact mean."""

from itertools import pairwise

import pytest
import torch
from helpers.reference import observe
from helpers.slow_scores import slow_window_scores

import laconic
from laconic import PyramidKV
from laconic.budget import pyramid


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_score_equals_the_loop(pooling):
    seen = observe(n=29)
    method = PyramidKV(window=4, kernel=3, pooling=pooling)
    torch.testing.assert_close(method.score(seen), slow_window_scores(seen, 4, 3, pooling), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("mean", "seen"), [(2048, 100_000), (128, 5000), (60, 100), (50, 200), (90, 100), (5, 100)])
@pytest.mark.parametrize("layers", [4, 32])
def test_layer_budgets_fall_and_keep_their_mean(mean, seen, layers):
    method = PyramidKV()
    counts = [method.layer_entries(i, layers, mean, seen) for i in range(layers)]
    assert abs(sum(counts) / layers - mean) <= 1
    assert all(b - a <= 1 for a, b in pairwise(counts))
    assert max(counts) <= seen + 1 and min(counts) >= min(mean, method.window)


def test_the_papers_numbers():
    """C = 2048, w = 8, L = 32 give 3986 ... 111 with floor division; real-valued steps end at w + (C - w) / beta."""
    slope = pyramid(2040, 20, 32, 99_992)
    assert slope[-1] == pytest.approx(2040 / 20) and slope[0] == pytest.approx(2 * 2040 - 102)
    assert slope[0] + 8 == pytest.approx(3986) and sum(slope) == pytest.approx(32 * 2040)
    counts = [PyramidKV().layer_entries(i, 32, 2048, 100_000) for i in range(32)]
    assert counts[0] == 3986 and counts[-1] == 110 and sum(counts) == 32 * 2048


def test_a_short_prompt_flattens_the_slope():
    counts = [PyramidKV().layer_entries(i, 4, 60, 100) for i in range(4)]
    assert counts[0] == 100 and sum(counts) == 240


def test_beta_one_gives_equal_budgets():
    method = PyramidKV(beta=1)
    assert {method.layer_entries(i, 32, 77, 1000) for i in range(32)} == {77}


@pytest.mark.parametrize("keep", [0.5, 0.25])
def test_kept_counts_on_a_model(llama, prompt, keep):
    n = 90
    with laconic.compress(llama, PyramidKV(keep=keep, beta=4)) as session:
        llama(prompt(2, n))
    lengths = [layer.lengths for layer in session.cache.compressed()]
    assert all((x == x[0, 0]).all() for x in lengths)
    counts = [int(x[0, 0]) for x in lengths]
    assert abs(sum(counts) / 4 - int(n * keep)) <= 1
    assert counts == sorted(counts, reverse=True) and counts[0] > 1.5 * counts[-1]
    for i in range(4):
        assert session.kept(i)[-8:].tolist() == list(range(n - 8, n)) if counts[i] >= 16 else True


def test_beta_below_one_is_refused():
    with pytest.raises(ValueError, match=r"beta=0\.5"):
        PyramidKV(beta=0.5)

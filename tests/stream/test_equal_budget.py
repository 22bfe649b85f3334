"""The budget converter reproduces published numbers; several cuts meet a mean."""

from types import SimpleNamespace

import pytest
import torch

from laconic.errors import BudgetError
from laconic.methods.tokens.fastv import FastV
from laconic.methods.tokens.pyramiddrop import PyramidDrop
from laconic.methods.tokens.random_visual import RandomVisual
from laconic.methods.tokens.sparsevlm import PUBLISHED, with_recycled
from laconic.stream.equal_budget import average, fitted, mean_tokens, tokens_after


def stream(total, layer, depth, others=40):
    """A batch row of `total` visual tokens, as one cut sees it."""
    mask = torch.tensor([[False] * others + [True] * total])
    visual = SimpleNamespace(mask=mask, separators=torch.zeros_like(mask))
    return SimpleNamespace(visual=visual, shown=mask, valid=None, layer=layer, depth=depth, entry_bytes=100)


@pytest.mark.parametrize(
    ("depth", "layer", "expected"),
    [(32, 2, {192: 166, 128: 98, 64: 30}), (32, 3, {192: 152, 128: 82, 64: 11}), (40, 2, {192: 172, 128: 104, 64: 37})],
)
def test_published_budgets_at_one_cut(depth, layer, expected):
    """Must show 9: one cut at K that keeps n has the mean (K N + (L - K) n) / L."""
    for mean, kept in expected.items():
        method = FastV(keep=mean / 576, layer=layer)
        assert tokens_after(method, stream(576, layer, depth), 0) == kept
        assert average(576, [layer], [kept], depth) == pytest.approx(mean, abs=0.5)


def test_default_of_pyramiddrop_averages_270():
    """Must show 9."""
    layers = list(PyramidDrop().cuts(32))
    assert layers == [8, 16, 24]
    assert average(576, layers, [288, 144, 72], 32) == 270


def test_published_budgets_of_sparsevlm_count_recycled_tokens():
    """The lists average 192, 129 and 65 when recycled tokens count and the layers 2, 6, 15 already run on fewer tokens;
    since the cuts apply to the output of these layers, one more layer runs on all of them."""
    for mean, counts in PUBLISHED.items():
        left = with_recycled(576, counts)
        assert average(576, [2, 6, 15], left, 32) == pytest.approx(mean, abs=1)
        assert average(576, [3, 7, 16], left, 32) > mean + 10


def test_budgets_in_tokens_and_bytes():
    row = stream(100, 0, 8, others=10)
    assert mean_tokens(RandomVisual(tokens=30), row, 0) == 30 == tokens_after(RandomVisual(tokens=30), row, 0)
    assert mean_tokens(RandomVisual(bytes=6000), row, 0) == 50
    assert tokens_after(RandomVisual(tokens=400), row, 0) == 100
    assert tokens_after(RandomVisual(keep=0.5), stream(0, 0, 8), 0) == 0
    with pytest.raises(BudgetError, match="cut earlier"):
        tokens_after(FastV(keep=0.1, layer=2), stream(100, 2, 8), 0)


def test_fitted_is_the_largest_that_meets_the_mean():
    def counts(x):
        return [int(100 * x), int(50 * x)]

    for mean in (26.0, 31.7, 48.2):
        x = fitted("method", mean, 100, [2, 4], 8, counts)
        assert average(100, [2, 4], counts(x), 8) <= mean < average(100, [2, 4], counts(x + 0.01), 8)
    assert fitted("method", 90.0, 100, [2, 4], 8, counts) == 1
    with pytest.raises(BudgetError, match=r"before layers 2, 4 of 8 at least 25\.0"):
        fitted("method", 20.0, 100, [2, 4], 8, counts)

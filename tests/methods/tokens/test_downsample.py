"""Downsample: every view at a lower resolution."""

import pytest
import torch
from helpers.slow_attention import numbers
from helpers.vision_exact import generate, run
from helpers.vision_tools import inputs

from laconic import BudgetError, compress
from laconic.methods.tokens.downsample import Downsample


@pytest.mark.parametrize(("budget", "grid"), [({}, (6, 6)), ({"keep": 0.1}, (3, 4)), ({"tokens": 90}, (9, 10))])
def test_equals_layers_run_by_hand(vlm, budget, grid):
    """Must show 2 and 8: means by loops, renumbered positions, cache lengths, decoding."""
    given, (height, width) = inputs([(3, 9)]), grid

    def change(i, hidden, visual, positions):
        if i:
            return hidden, visual, positions
        at, means = numbers(visual), []
        for a in range(height):
            for b in range(width):
                rows = range(a * 12 // height, -(-(a + 1) * 12 // height))
                cols = range(b * 12 // width, -(-(b + 1) * 12 // width))
                means.append(sum(hidden[at[r * 12 + c]] for r in rows for c in cols) / (len(rows) * len(cols)))
        hidden = torch.cat([hidden[: at[0]], torch.stack(means), hidden[at[-1] + 1 :]])
        visual = torch.cat([visual[: at[0]], torch.ones(len(means), dtype=torch.bool), visual[at[-1] + 1 :]])
        return hidden, visual, torch.arange(len(hidden))

    with compress(vlm, Downsample(**budget)) as session:
        ours = generate(vlm, given)[0]
    logits, _, lengths = run(vlm, given, change)
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)
    assert [x.stored - 3 for x in session.cache.compressed()] == lengths == [12 + height * width] * 8


def test_neutral(vlm):
    """Must show 1."""
    given = inputs([(3, 9), (8, 2)])
    plain = generate(vlm, given)
    for method in (Downsample(keep=1.0), Downsample(tokens=144)):
        with compress(vlm, method):
            torch.testing.assert_close(generate(vlm, given), plain, rtol=1e-5, atol=1e-5)


def test_every_view_keeps_a_token(vlm):
    with compress(vlm, Downsample(tokens=2)) as session, torch.no_grad():
        vlm(**inputs([(3, 9)], images=2))
    assert session.stats.visual[0] == 2
    with pytest.raises(BudgetError, match="leaves 1 visual tokens to 2"), compress(vlm, Downsample(tokens=1)):
        vlm(**inputs([(3, 9)], images=2))

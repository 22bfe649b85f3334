"""VTW: all visual tokens leave before layer K, and text keeps its positions."""

import pytest
import torch
from helpers.slow_attention import stay
from helpers.vision_exact import generate, run
from helpers.vision_tools import IMAGE, inputs

from laconic import BudgetError, compress
from laconic.methods.tokens.vtw.method import VTW


@pytest.mark.parametrize(("method", "k"), [(VTW(), 4), (VTW(layer=1), 1), (VTW(keep=0.7), 5), (VTW(tokens=50), 2)])
def test_equals_layers_run_by_hand(vlm, method, k):
    """Must show 2 and 8: 15 of 32 layers is 4 of 8; positions with the gap; text alone in the cache after it."""
    given = inputs([(3, 9)])
    with compress(vlm, method) as session:
        ours = generate(vlm, given)[0]
    logits, _, lengths = run(vlm, given, lambda i, h, v, p: stay(h, v, p, []) if i == k else (h, v, p))
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)
    assert [x.stored - 3 for x in session.cache.compressed()] == lengths == [156] * k + [12] * (8 - k)
    assert session.stats.achieved == pytest.approx(k / 8)


@pytest.mark.parametrize("method", [VTW(layer=8), VTW(keep=1.0)])
def test_depth_changes_nothing(vlm, method):
    """Must show 1: K = L."""
    given = inputs([(3, 9), (8, 2)])
    plain = generate(vlm, given)
    with compress(vlm, method):
        torch.testing.assert_close(generate(vlm, given), plain, rtol=1e-5, atol=1e-5)


def test_a_batch_in_which_only_one_row_has_an_image_left(vlm):
    """A number of tokens gives every row its own K, and only then do its visual tokens leave."""
    given = inputs([(3, 9), (8, 2)])
    given["input_ids"][1][given["input_ids"][1] == IMAGE] = 20  # no image in row 1
    given["pixel_values"] = given["pixel_values"][:1]
    with compress(vlm, VTW(tokens=72)) as session:
        both = generate(vlm, given)
    real = given["attention_mask"][0] == 1
    alone = {"input_ids": given["input_ids"][:1, real], "pixel_values": given["pixel_values"]}
    with compress(vlm, VTW(tokens=72)):
        torch.testing.assert_close(generate(vlm, alone)[0], both[0], rtol=1e-4, atol=1e-4)
    assert [event.layer for event in session.trace.events] == [3]


def test_budgets_that_cannot_be_met_are_refused(vlm):
    with pytest.raises(BudgetError, match=r"ask for keep=0.1250"), compress(vlm, VTW(keep=0.1)), torch.no_grad():
        vlm(**inputs([(3, 9)]))
    with pytest.raises(ValueError, match="layer=0"):
        VTW(layer=0)
    with pytest.raises(ValueError, match="not both"):
        VTW(layer=3, artifact="x")
    with pytest.raises(BudgetError, match="protected"), compress(vlm, VTW(), protect=(10, 12)), torch.no_grad():
        vlm(**inputs([(3, 9)]))

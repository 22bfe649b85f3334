"""PyramidDrop: stages, ranks computed ahead, renumbered positions, budgets."""

import pytest
import torch
from helpers.slow_attention import attention, numbers, stay, top
from helpers.vision_exact import generate, run
from helpers.vision_tools import inputs

from laconic import BudgetError, compress
from laconic.methods.tokens.pyramiddrop import PyramidDrop


def change(model, counts):
    """`counts[k]` visual tokens stay before layer k, ranked by layer k's true attention on the uncut stream."""

    def before(i, hidden, visual, positions):
        if i not in counts:
            return hidden, visual, positions
        row, at = attention(model, i, hidden, positions)[:, -1].mean(0), numbers(visual)
        rows = [at[n] for n in top([row[j] for j in at], counts[i])]
        return stay(hidden, visual, positions, rows, renumber=True)

    return before


CASES = [
    ({}, {2: 72, 4: 36, 6: 18}),
    ({"ratio": 0.3, "layers": (1, 5)}, {1: 43, 5: 12}),
    ({"stages": 3, "ratio": 0.25}, {3: 36, 5: 9}),
]


@pytest.mark.parametrize(("options", "counts"), CASES)
def test_equals_layers_run_by_hand(vlm, options, counts):
    """Must show 2, 4 and 8: the rank is layer k's own attention; renumbered positions; cache lengths; decoding."""
    given = inputs([(3, 9)])
    with compress(vlm, PyramidDrop(**options)) as session:
        ours = generate(vlm, given)[0]
    logits, _, lengths = run(vlm, given, change(vlm, counts))
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)
    assert [x.stored - 3 for x in session.cache.compressed()] == lengths
    assert [event.after - 12 for event in session.trace.events] == list(counts.values())


def test_a_padded_batch_equals_single_runs(vlm):
    given = inputs([(3, 9), (8, 2)])
    with compress(vlm, PyramidDrop()):
        both = generate(vlm, given)
    for row in range(2):
        real = given["attention_mask"][row] == 1
        alone = {"input_ids": given["input_ids"][row : row + 1, real], "pixel_values": given["pixel_values"][row : row + 1]}
        with compress(vlm, PyramidDrop()):
            torch.testing.assert_close(generate(vlm, alone)[0], both[row], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", [PyramidDrop(ratio=1.0), PyramidDrop(keep=1.0)])
def test_nothing_to_drop_changes_nothing(vlm, method):
    """Must show 1: ratios of 1, and the neutral budget."""
    given = inputs([(3, 9), (8, 2)])
    plain = generate(vlm, given)
    with compress(vlm, method):
        torch.testing.assert_close(generate(vlm, given), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("keep", [0.8, 0.46875, 0.3, 0.2, 0.14])
def test_budgets(vlm, keep):
    with compress(vlm, PyramidDrop(keep=keep)) as session, torch.no_grad():
        vlm(**inputs([(3, 9)], images=2))
    assert keep - 1 / 144 < session.stats.achieved <= keep + 1e-6
    assert sorted(session.stats.visual.values(), reverse=True) == list(session.stats.visual.values())


def test_cuts_move_to_the_input_for_small_budgets():
    """At the published mean they are the published ones; 64 of 576 cannot be reached with the first cut before layer 8."""
    assert list(PyramidDrop(keep=0.46875).cuts(32)) == [8, 16, 24] == list(PyramidDrop(keep=0.9).cuts(32))
    assert list(PyramidDrop(keep=64 / 576).cuts(32)) == [2, 4, 6]
    assert list(PyramidDrop(keep=0.13).cuts(8)) == [1, 2, 3]


def test_budgets_that_cannot_be_met_are_refused(vlm):
    with pytest.raises(BudgetError, match="before layers 2, 4, 6 of 8 at least"), compress(vlm, PyramidDrop(tokens=20)):
        vlm(**inputs([(3, 9)]))
    with pytest.raises(ValueError, match=r"layers=\(4, 2\)"):
        PyramidDrop(layers=(4, 2))
    with pytest.raises(ValueError, match="ratio=0"):
        PyramidDrop(ratio=0)
    with pytest.raises(ValueError, match="stages=1"):
        PyramidDrop(stages=1)

"""Pool: windows on the grid, along the raster, and samples."""

import pytest
import torch
from helpers.slow_attention import numbers
from helpers.vision_exact import generate, run
from helpers.vision_tools import inputs

from laconic import BudgetError, compress
from laconic.methods.tokens.pool import Pool


def slow_windows(mode, stride):
    """Visual tokens of every window of a 12 x 12 grid, and the one that carries the mean."""
    if mode != "grid":
        found = [list(range(start, min(144, start + stride))) for start in range(0, 144, stride)]
        return found, [w[0] if mode == "sample" else w[(len(w) - 1) // 2] for w in found]
    found, at = [], []
    size = -(-12 // stride)
    for i in range(size):
        for j in range(size):
            rows = range(i * 12 // size, -(-(i + 1) * 12 // size))
            cols = range(j * 12 // size, -(-(j + 1) * 12 // size))
            found.append([r * 12 + c for r in rows for c in cols])
            at.append((rows[0] + rows[-1]) // 2 * 12 + (cols[0] + cols[-1]) // 2)
    return found, at


@pytest.mark.parametrize("layer", [0, 3])
@pytest.mark.parametrize(("mode", "stride"), [("grid", 2), ("grid", 5), ("raster", 4), ("raster", 5), ("sample", 7)])
def test_equals_layers_run_by_hand(vlm, mode, stride, layer):
    """Must show 2 and 8: means by loops; positions renumbered at the input, gathered before a layer; cache lengths;
    decoding."""
    given, (found, carriers) = inputs([(3, 9)]), slow_windows(mode, stride)

    def change(i, hidden, visual, positions):
        if i != layer:
            return hidden, visual, positions
        hidden, at = hidden.clone(), numbers(visual)
        old = hidden.clone()
        for window, carrier in zip(found, carriers, strict=True):
            if mode != "sample":
                hidden[at[carrier]] = sum(old[at[n]] for n in window) / len(window)
        keep = torch.tensor([n for n in range(len(hidden)) if not visual[n] or n - at[0] in carriers])
        return hidden[keep], visual[keep], positions[keep] if layer else torch.arange(len(keep))

    with compress(vlm, Pool(mode=mode, stride=stride, layer=layer)) as session:
        ours = generate(vlm, given)[0]
    logits, _, lengths = run(vlm, given, change)
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)
    assert [x.stored - 3 for x in session.cache.compressed()] == lengths
    (event,) = session.trace.events
    for window, carrier in zip(found, carriers, strict=True):
        went = {int(event.merged[0, 3 + n]) for n in window}
        if 12 % stride and mode == "grid":
            assert 3 + carrier in went  # windows overlap
        else:
            assert went == ({3 + carrier} if mode != "sample" else {3 + carrier, -1})


@pytest.mark.parametrize("method", [Pool(stride=1), Pool(keep=1.0), Pool(tokens=144), Pool(layer=8)])
def test_stride_one_changes_nothing(vlm, method):
    """Must show 1: S = 1, the neutral budget, K = L."""
    given = inputs([(3, 9), (8, 2)])
    plain = generate(vlm, given)
    with compress(vlm, method):
        torch.testing.assert_close(generate(vlm, given), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["raster", "sample"])
def test_budgets_are_met_to_the_token(vlm, mode):
    for tokens in (10, 77, 143):
        with compress(vlm, Pool(mode=mode, tokens=tokens)) as session, torch.no_grad():
            vlm(**inputs([(3, 9)], images=2))
        assert session.stats.visual[7] == tokens


def test_images_do_not_mix(vlm):
    with compress(vlm, Pool(mode="raster", stride=100)) as session, torch.no_grad():
        vlm(**inputs([(3, 9)], images=2))
    assert session.stats.visual[0] == 4  # 144 = 100 + 44, twice


def test_budgets_that_cannot_be_met_are_refused(vlm):
    with pytest.raises(BudgetError, match="leaves 1 visual tokens to 2"), compress(vlm, Pool(mode="raster", tokens=1)):
        vlm(**inputs([(3, 9)], images=2))


@pytest.mark.parametrize("wrong", [{"stride": 0}, {"mode": "columns"}, {"positions": "x"}])
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(ValueError, match=f"pool: {next(iter(wrong))}="):
        Pool(**wrong)

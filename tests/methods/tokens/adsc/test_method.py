"""ADSC against closed forms and a slow run; "line n" refers to the list of what it must show. The training lines are in
test_training.py."""

import pytest
import torch
from helpers.vision_exact import generate, run
from helpers.vision_tools import inputs
from hypothesis import given as drawn
from hypothesis import strategies as st

from laconic import BudgetError, compress, create_method
from laconic.methods.tokens.adsc.method import ADSC, every, schedule, visual_share
from laconic.methods.tokens.llavolta.method import LLaVolta


def strided(layers, factor, mode="last"):
    """Slow reference: what stays before each layer."""

    def change(layer, hidden, visual, positions):
        if layer not in layers:
            return hidden, visual, positions
        at = visual.nonzero()[:, 0].tolist()
        groups = [at[i : i + factor] for i in range(0, len(at), factor)]
        stays = [group[0] if mode == "first" else group[-1] for group in groups]
        if mode == "avg":
            hidden = hidden.clone()
            for group in groups:
                hidden[group[-1]] = hidden[group].mean(0)
        keep = torch.tensor([i for i in range(len(visual)) if not visual[i] or i in stays])
        return hidden[keep], visual[keep], positions[keep]

    return change


@pytest.mark.parametrize("method", [ADSC(layers=()), ADSC(factor=1), ADSC(keep=1.0)])
def test_without_bottlenecks_nothing_changes(vlm, method):
    """line 1"""
    given = inputs([(3, 9), (1, 5)])
    plain = vlm(**given).logits
    with compress(vlm, method):
        torch.testing.assert_close(vlm(**given).logits, plain, rtol=1e-5, atol=1e-5)


@drawn(st.integers(1, 200), st.integers(1, 40))
def test_kept_tokens_are_the_closed_form(n, factor):
    """line 2; also where n is not divisible by r, and n < r"""
    last = [i for i in range(n) if (i + 1) % factor == 0 or i == n - 1]
    assert every(n, factor).tolist() == last
    assert every(n, factor, "first").tolist() == [i for i in range(n) if i % factor == 0]
    assert len(last) == -(-n // factor)


@pytest.mark.parametrize("mode", ["last", "first", "avg"])
@pytest.mark.parametrize(("layers", "factor"), [((0,), 5), ((2, 4, 5), 2), ((7,), 200)])
def test_generation_equals_layers_run_by_hand(vlm, layers, factor, mode):
    """line 5: greedy decoding with the cache equals a run with the same gathers; positions are the originals"""
    given = inputs([(3, 9)])
    with compress(vlm, ADSC(layers=layers, factor=factor, mode=mode)) as session:
        got = generate(vlm, given)[0]
    want, _, lengths = run(vlm, given, strided(layers, factor, mode))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert [layer.stored - 3 for layer in session.cache.compressed()] == lengths


def test_survivors_keep_their_positions_in_order(vlm):
    """line 5"""
    seen = {}

    class Watched(ADSC):
        def cut(self, stream):
            cut = super().cut(stream)
            seen[stream.layer] = stream.positions[0].tolist(), cut.keep[0].tolist(), cut.positions
            return cut

    with compress(vlm, Watched(layers=(1, 3), factor=4)):
        vlm(**inputs([(3, 9)]))
    assert seen[1][0] == list(range(156)) and seen[1][2] == "gather"
    want = [*range(3), *range(6, 147, 4), *range(147, 156)]
    assert seen[3][0] == want == [seen[1][0][i] for i in seen[1][1]]
    assert [want[i] for i in seen[3][1]] == [*range(3), *range(18, 147, 16), *range(147, 156)]


@pytest.mark.parametrize("outside", ["eager", "sdpa"])
def test_nothing_reads_attention(vlm, outside):
    """line 3: equal whatever the model's own backend is, and no layer's attention is observed"""
    given = inputs([(3, 9)])
    want, _, _ = run(vlm, given, strided((2, 4, 5), 2), new=1)
    before = vlm.config._attn_implementation
    vlm.set_attn_implementation(outside)
    try:
        with compress(vlm, ADSC()):
            got = vlm(**given).logits[0, -1]
    finally:
        vlm.set_attn_implementation(before)
    torch.testing.assert_close(got, want[0], rtol=1e-4, atol=1e-4)
    assert not ADSC().observes(8)


def test_counters_reproduce_the_share(vlm):
    """line 4"""
    assert round(100 * (1 - visual_share((8, 14, 19), 2, 32)), 1) == 56.6
    for layers, factor, depth, share in [((7, 16, 19), 2, 32, 0.434), ((3, 17), 2, 32, 0.430), ((8,), 4, 32, 0.4375)]:
        assert visual_share(layers, factor, depth) == pytest.approx(share, abs=5e-4)
    with compress(vlm, ADSC(layers=(2, 4, 5), factor=2)) as session:
        vlm(**inputs([(3, 9)]))
    stats = session.stats
    share = visual_share((2, 4, 5), 2, 8)
    assert share == (2 + 2 / 2 + 1 / 4 + 3 / 8) / 8
    assert stats.achieved == pytest.approx(share)
    entries = sum(12 + 144 * f for f in (1, 1, 0.5, 0.5, 0.25, 0.125, 0.125, 0.125))
    assert stats.kv_bytes == entries * 2 * 2 * 32 * 4
    shape = session.shape
    assert stats.prefill_flops == shape.prefill_flops(
        [int(12 + 144 * f) for f in (1, 1, 0.5, 0.5, 0.25, 0.125, 0.125, 0.125)], logits=156
    ) - 2 * shape.head_weights * (156 - 30)


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5, 0.434, 0.25, 0.125])
@pytest.mark.parametrize("depth", [8, 32])
def test_the_solver_spaces_evenly_and_meets_the_share(share, depth):
    for factor in (2, 4, 8, 16):
        layers = schedule(share, 3, factor, depth)
        if layers:
            break
    assert len(layers) == 3 and 0 <= layers[0] < layers[1] < layers[2] < depth
    assert abs((layers[1] - layers[0]) - (layers[2] - layers[1])) <= 1
    got = visual_share(layers, factor, depth)
    assert got <= share + 1e-9
    best = max(
        f
        for a in range(depth)
        for b in range(a + 1, depth)
        for c in (2 * b - a - 1, 2 * b - a)
        if b < c < depth and (f := visual_share((a, b, c), factor, depth)) <= share + 1e-9
    )
    assert got >= best - 0.02 * share - 1e-9


def test_the_published_share_gives_the_recorded_layers():
    assert schedule(0.434, 3, 2, 32) == (8, 14, 19)


@pytest.mark.parametrize("budget", [{"keep": 0.5}, {"keep": 0.25}, {"keep": 0.14}, {"tokens": 40}, {"bytes": 80_000}])
def test_budgets(vlm, budget):
    with compress(vlm, ADSC(**budget)) as session:
        vlm(**inputs([(3, 9)]))
    stats = session.stats
    assert 0.6 * stats.asked < stats.achieved <= stats.asked + 1 / 144
    assert stats.achieved == pytest.approx(sum(stats.visual.values()) / 8 / 144)


def test_each_row_of_a_batch_meets_the_budget(vlm):
    """One image beside two, whose share of so many tokens is half of the first one's."""
    one, two = inputs([(3, 9)]), inputs([(3, 9)], images=2)
    pad = torch.zeros(1, 144, dtype=torch.long)
    given = {name: torch.cat([torch.cat([pad, one[name]], 1), two[name]]) for name in ("input_ids", "attention_mask")}
    given["pixel_values"] = torch.cat([one["pixel_values"], two["pixel_values"]])
    with compress(vlm, ADSC(tokens=72)) as session:
        vlm(**given)
    for row in range(2):
        visual = [len(session.kept(layer, row=row)) - 12 for layer in range(8)]
        assert 0.6 * 72 < sum(visual) / 8 <= 73


def test_rows_of_a_batch_and_two_images(vlm):
    given = inputs([(3, 9), (8, 2)], images=2)
    method = ADSC(layers=(0, 3), factor=7)
    with compress(vlm, method):
        together = generate(vlm, given, 2)
    for b in range(2):
        real = given["attention_mask"][b] == 1
        alone = {"input_ids": given["input_ids"][b : b + 1, real], "pixel_values": given["pixel_values"][2 * b : 2 * b + 2]}
        with compress(vlm, method) as session:
            torch.testing.assert_close(generate(vlm, alone, 2)[0], together[b], rtol=1e-4, atol=1e-4)
        assert session.stats.visual[0] == 2 * 21 and session.stats.visual[3] == 2 * 3


def test_on_the_grid_columns_and_lines_alternate(vlm):
    with compress(vlm, ADSC(layers=(1, 3, 5), factor=2, grid=True)) as session:
        vlm(**inputs([(3, 9)]))

    def shown(layer):
        return [n - 3 for n in session.kept(layer).tolist() if 3 <= n < 147]

    assert shown(1) == [r * 12 + c for r in range(12) for c in range(1, 12, 2)]
    assert shown(3) == [r * 12 + c for r in range(1, 12, 2) for c in range(1, 12, 2)]
    assert shown(5) == [r * 12 + c for r in range(1, 12, 2) for c in range(3, 12, 4)]


def test_after_a_method_that_shortens_the_input(vlm):
    """line 9"""
    given = inputs([(3, 9)])

    def change(layer, hidden, visual, positions):
        if layer == 0:  # eights become their mean at the fourth's position
            at = visual.nonzero()[:, 0]
            hidden = hidden.clone()
            hidden[at[3::8]] = hidden[at].view(-1, 8, hidden.shape[-1]).mean(1)
            keep = torch.tensor([i for i in range(len(visual)) if not visual[i] or i in at[3::8].tolist()])
            return hidden[keep], visual[keep], positions[keep]
        return strided((2, 4), 3)(layer, hidden, visual, positions)

    want, _, _ = run(vlm, given, change)
    with compress(vlm, LLaVolta(layer=0, stride=8), ADSC(layers=(2, 4), factor=3)) as session:
        torch.testing.assert_close(generate(vlm, given)[0], want, rtol=1e-4, atol=1e-4)
    assert [session.stats.visual[i] for i in range(5)] == [18, 18, 6, 6, 2]


def test_bad_parameters(vlm):
    with pytest.raises(ValueError, match="mode='mean'"):
        ADSC(mode="mean")
    with pytest.raises(ValueError, match="whole rows and columns"):
        ADSC(mode="avg", grid=True)
    with pytest.raises(ValueError, match="together with a budget"):
        ADSC(layers=(2, 3), keep=0.5)
    with pytest.raises(ValueError, match="ascending"):
        ADSC(layers=(3, 2))
    with pytest.raises(BudgetError, match="raise the factor"):
        compress(vlm, ADSC(keep=0.05, factor=2))
    assert create_method("adsc:bottlenecks=2,factor=4", keep=0.5).bottlenecks == 2

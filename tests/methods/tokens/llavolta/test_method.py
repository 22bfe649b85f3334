"""LLaVolta's compressor against a reshape-mean and a slow run; "line n" is what the card must show. Stages: tests/train."""

import pytest
import torch
from helpers.vision_exact import generate, run
from helpers.vision_tools import inputs

from laconic import BudgetError, compress, create_method
from laconic.methods.tokens.llavolta.method import LLaVolta, compression_ratio


def pooled(layer, stride):
    """Slow reference of the compressor."""

    def change(i, hidden, visual, positions):
        if i != layer:
            return hidden, visual, positions
        at = visual.nonzero()[:, 0].tolist()
        rows, seen, places = [], [], []
        groups = {at[s]: at[s : s + stride] for s in range(0, len(at) - stride + 1, stride)}
        for n in range(len(visual)):
            if not visual[n]:
                rows.append(hidden[n])
                places.append(int(positions[n]))
                seen.append(False)
            elif n in groups:
                rows.append(sum(hidden[k] for k in groups[n]) / stride)
                places.append(sum(int(positions[k]) for k in groups[n]) // stride)
                seen.append(True)
        return torch.stack(rows), torch.tensor(seen), torch.tensor(places)

    return change


@pytest.mark.parametrize("method", [LLaVolta(stride=1), LLaVolta(stride=1, layer=3), LLaVolta(keep=1.0)])
def test_off_is_the_host(vlm, method):
    """line 1"""
    given = inputs([(3, 9), (1, 5)])
    plain = vlm(**given).logits
    with compress(vlm, method):
        torch.testing.assert_close(vlm(**given).logits, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("layer", "stride"), [(0, 8), (1, 2), (2, 7), (4, 144)])
def test_generation_equals_layers_run_by_hand(vlm, layer, stride):
    """line 2: groups are a reshape and a mean, 144 = 20 * 7 + 4 drops the four; and decoding goes on from there"""
    given = inputs([(3, 9)])
    with compress(vlm, LLaVolta(layer=layer, stride=stride)) as session:
        got = generate(vlm, given)[0]
    want, _, lengths = run(vlm, given, pooled(layer, stride))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert [part.stored - 3 for part in session.cache.compressed()] == lengths


def test_the_formula_of_the_paper():
    """line 3"""
    settings = [(2, 8), (2, 2), (16, 2), (16, 8), (0, 1)]
    assert [round(compression_ratio(k, s, 32)) for k, s in settings] == [557, 188, 133, 178, 100]


@pytest.mark.parametrize(("layer", "stride"), [(0, 4), (2, 8), (4, 2)])
def test_counted_tokens_follow_the_formula(vlm, layer, stride):
    """lines 3 and 7: what ran is what the formula says"""
    with compress(vlm, LLaVolta(layer=layer, stride=stride)) as session:
        vlm(**inputs([(3, 9)]))
    assert 100 / session.stats.achieved == pytest.approx(compression_ratio(layer, stride, 8))
    stream = [156 if i < layer else 12 + 144 // stride for i in range(8)]
    flops = session.shape.prefill_flops(stream, logits=stream[-1])
    assert session.stats.prefill_flops == flops < session.stats.prefill_flops_full


def test_positions(vlm):
    """line 4"""
    seen = {}

    class Watched(LLaVolta):
        def cut(self, stream):
            cut = super().cut(stream)
            seen["before"], seen["after"], seen["keep"] = stream.positions[0], cut.positions[0], cut.keep[0]
            return cut

    with compress(vlm, Watched(layer=1, stride=5)):
        vlm(**inputs([(3, 9)]))
    after = seen["after"].tolist()
    assert after == [0, 1, 2, *[(5 * i + 3) + 2 for i in range(28)], *range(147, 156)]
    assert (seen["after"].diff() > 0).all() and seen["before"].tolist() == list(range(156))


def test_the_middle_of_a_group_carries_it_and_what_is_left_over_goes(vlm):
    """Where a token has several positions they are the middle's; 144 = 14 * 10 + 4."""
    seen = []

    class Watched(LLaVolta):
        def cut(self, stream):
            seen.append(super().cut(stream))
            return seen[-1]

    with compress(vlm, Watched(layer=0, stride=10)):
        vlm(**inputs([(3, 9)]))
    (cut,) = seen
    middles = list(range(7, 147, 10))
    assert cut.keep[0].tolist() == [0, 1, 2, *middles, *range(147, 156)]
    merged = [n for middle in middles for n in [middle] * 10]
    assert cut.merged[0].tolist() == [0, 1, 2, *merged, *[-1] * 4, *range(147, 156)]


def test_positions_of_gaps_are_the_floor_of_the_mean(vlm):
    seen = {}

    class Watched(LLaVolta):
        def cut(self, stream):
            stream.positions = stream.positions.clone()
            stream.positions[0, 3:147] = stream.positions[0, 3:147] ** 2
            cut = super().cut(stream)
            seen["after"] = cut.positions[0].tolist()
            cut.positions[:] = torch.arange(cut.keep.shape[1])
            return cut

    with compress(vlm, Watched(layer=0, stride=3)):
        vlm(**inputs([(3, 9)]))
    assert seen["after"][3:51] == [(n**2 + (n + 1) ** 2 + (n + 2) ** 2) // 3 for n in range(3, 147, 3)]


def test_a_mixed_batch_equals_rows_alone(vlm):
    """line 10: text only, one image, two images"""
    one, two = inputs([(3, 9)], seed=1), inputs([(2, 4)], seed=2, images=2)
    text = torch.randint(10, 400, (1, 11))
    rows = [text[0], one["input_ids"][0], two["input_ids"][0]]
    most = max(map(len, rows))
    ids = torch.stack([torch.cat([row.new_zeros(most - len(row)), row]) for row in rows])
    mask = torch.stack([(torch.arange(most) >= most - len(row)).long() for row in rows])
    given = {"input_ids": ids, "attention_mask": mask}
    given["pixel_values"] = torch.cat([one["pixel_values"], two["pixel_values"]])
    for layer in (0, 2):
        method = LLaVolta(layer=layer, stride=8)
        with compress(vlm, method):
            together = vlm(**given).logits
        alone = []
        for single in ({"input_ids": text}, one, two):
            with compress(vlm, method):
                alone.append(vlm(**single).logits[0])
        for b, want in enumerate(alone):
            torch.testing.assert_close(together[b, -len(want) :], want, rtol=1e-4, atol=1e-4)
        assert [len(x) for x in alone] == [11, 12 + 18, 6 + 36]


@pytest.mark.parametrize(
    "budget", [{"keep": 0.5}, {"keep": 0.25}, {"keep": 0.125, "layer": 0}, {"tokens": 30}, {"bytes": 200_000}]
)
def test_a_budget_takes_the_smallest_stride_that_meets_it(vlm, budget):
    with compress(vlm, LLaVolta(**budget)) as session:
        vlm(**inputs([(3, 9)]))
    stats = session.stats
    assert stats.achieved <= stats.asked + 1e-6
    layer = budget.get("layer", 1)
    stride = round(144 / stats.visual[layer] - 0.4)
    assert (layer + (8 - layer) / (stride - 1)) / 8 > stats.asked


def test_bad_settings(vlm):
    with pytest.raises(ValueError, match="not both"):
        LLaVolta(stride=4, keep=0.5)
    with pytest.raises(ValueError, match="at least 1"):
        LLaVolta(stride=0)
    with pytest.raises(BudgetError, match="144 tokens has no group"), compress(vlm, LLaVolta(stride=145)):
        vlm(**inputs([(3, 9)]))
    assert create_method("llavolta:layer=2,stride=4").stride == 4

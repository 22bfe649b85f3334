"""ToMe against a CLIP tower run by hand, with merges between attention and MLP."""

import pytest
import torch
from helpers.encoder_by_hand import GREEDY, attention, decode, entered, sharp_vlm, start
from helpers.matching import matched
from helpers.vision_tools import inputs
from torch.utils.flop_counter import FlopCounterMode

from laconic import BudgetError, compress
from laconic.methods.encoder.tome import ToMe, even

FEATURES = 3


@pytest.fixture(scope="module")
def model():
    return sharp_vlm()


def slow(model, pixels, steps, proportional):
    """The algorithm: merged patches [k, C] after the feature layer and the patches of each, ordered by the first."""
    tower = model.model.vision_tower
    x = start(tower, pixels[None])[0]
    clusters, size = [[i] for i in range(len(x))], torch.ones(len(x))
    for layer, r in zip(tower.encoder.layers, steps, strict=False):
        added, _, keys = attention(layer, x, size.log() if proportional else None)
        x = x + added
        groups = matched(keys.mean(0), r, True)
        x = torch.stack([sum(size[i] * x[i] for i in g) / sum(size[i] for i in g) for g in groups])
        size = torch.stack([sum(size[i] for i in g) for g in groups])
        clusters = [[member for i in g for member in clusters[i]] for g in groups]
        x = x + layer.mlp(layer.layer_norm2(x))
    assert clusters[0] == [0] and int(size.sum()) == 145 and [len(c) for c in clusters] == size.tolist()
    order = sorted(range(1, len(x)), key=lambda k: min(clusters[k]))
    return x[order], [sorted(i - 1 for i in clusters[k]) for k in order]


@pytest.mark.parametrize(
    "method, steps",
    [
        (ToMe(r=16), [16] * 4),
        (ToMe(keep=0.25, schedule="decreasing"), [54, 36, 18, 0]),
        (ToMe(keep=0.1, proportional=False), [32, 56, 28, 14]),
    ],
)
def test_tokens_equal_the_loop(model, method, steps):
    """Must show 2, 6 (sizes sum to t) and 8: what enters the decoder, where, and what it answers."""
    given = inputs([(3, 9), (8, 4)])
    assert method.plan(144, 4) == steps
    session, out, hidden, positions = entered(model, method, given)
    n = 144 - sum(steps)
    assert hidden.shape[1] == 12 + n and positions[0].tolist() == list(range(12 + n))
    assert [layer.stored for layer in session.cache.compressed()] == [12 + n + 3] * 8
    for row, before in enumerate((3, 8)):
        x, clusters = slow(model, given["pixel_values"][row], steps, method.proportional)
        want = model.model.multi_modal_projector(x)
        torch.testing.assert_close(hidden[row, before : before + n], want, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(
            torch.stack([step[row] for step in out.logits]), decode(model, given, row, want), rtol=1e-3, atol=1e-3
        )
        event = session.trace.events[0]
        pad = int((given["attention_mask"][row] == 0).sum()) + before
        assert event.stream[row, before : before + n].tolist() == [pad + cluster[0] for cluster in clusters]
        for cluster in clusters:
            assert {int(event.merged[row, pad + i]) for i in cluster} == {pad + cluster[0]}


@pytest.mark.parametrize("method", [ToMe(keep=1.0), ToMe(r=0)])
def test_full_budget_changes_nothing(model, method):
    """Must show 1 and 6 (r=0)."""
    given = inputs([(3, 9)])
    want = model.generate(**given, **GREEDY)
    with compress(model, method) as session:
        got = model.generate(**given, **GREEDY)
    torch.testing.assert_close(torch.cat(got.logits), torch.cat(want.logits), rtol=1e-5, atol=1e-5)
    assert not session.trace.events


def test_the_encoder_is_as_cheap_as_with_merges_inside_its_layers():
    """FLOPs of the tower, counted, are those of the formula: attention on t tokens, the MLP on those that are left."""
    model = sharp_vlm()
    model.model.vision_tower.set_attn_implementation("eager")
    pixels = inputs([(3, 9)])["pixel_values"]

    def counted(steps):
        width, inner, t, total = 192, 768, 145, 2 * 144 * 192 * 3 * 64
        for i in range(5):
            r = steps[i] if i < 4 else 0
            total += 8 * t * width**2 + 4 * t**2 * width + 4 * (t - r) * width * inner
            total += 2 * ((t + 1) // 2) * (t // 2) * 48 if r else 0
            t -= r
        return total

    falling = ToMe(keep=0.25, schedule="decreasing")
    for method, steps in ((None, [0] * 4), (ToMe(r=16), [16] * 4), (falling, [54, 36, 18, 0])):
        with compress(model, *([method] if method else [])), FlopCounterMode(display=False) as flops:
            model.model.vision_tower(pixels)
        assert flops.get_total_flops() == counted(steps)
    assert counted([27] * 4) < 0.75 * counted([0] * 4)


def test_budgets_of_layers():
    assert even(576, 208, [1.0] * 23) == [16] * 23, "the paper's r for LLaVA"
    assert even(144, 72, [1.0] * 4) == [18] * 4
    assert even(144, 36, [3.0, 2.0, 1.0, 0.0]) == [54, 36, 18, 0]
    for kept in range(9, 145):
        for share in ([1.0] * 4, [3.0, 2.0, 1.0, 0.0]):
            steps, left = even(144, kept, share), 144
            for step in steps:
                assert 0 <= step <= left // 2
                left -= step
            assert left == kept
    with pytest.raises(BudgetError, match=r"keep=0\.0625 or more"):
        even(144, 8, [1.0] * 4)


def test_schedules_with_a_given_r():
    """2 r to 0, as released; never more than half."""
    assert ToMe(r=8, schedule="decreasing").plan(576, 23)[:3] == [16, 15, 14]
    assert ToMe(r=8, schedule="decreasing").plan(576, 23)[-1] == 0
    assert ToMe(r=16).plan(40, 4) == [16, 12, 6, 3] and ToMe(r=16).plan(576, 23) == [16] * 23
    assert ToMe(r=5).plan(16, 1) == [5] and ToMe(keep=0.5, schedule="decreasing").plan(16, 1) == [8]


def test_every_image_is_merged_alone(model):
    given = inputs([(3, 9)], images=2)
    _, _, both, _ = entered(model, ToMe(keep=0.25), given)
    for i in range(2):
        _, _, one, _ = entered(model, ToMe(keep=0.25), inputs([(3, 9)]) | {"pixel_values": given["pixel_values"][i : i + 1]})
        torch.testing.assert_close(both[0, 3 + 36 * i : 39 + 36 * i], one[0, 3:39], rtol=1e-4, atol=1e-5)


def test_a_protected_patch_stands_for_its_cluster(model):
    given = inputs([(3, 9)])
    free, *_ = entered(model, ToMe(keep=0.5), given)
    went = free.trace.events[0].merged[0]
    gone = int((went[3:147] != torch.arange(3, 147)).nonzero()[0]) + 3
    session, *_ = entered(model, ToMe(keep=0.5, protect=(gone, gone + 1)), given)
    assert int(session.trace.events[0].merged[0, went[gone]]) == gone
    pair = went.tolist().index(int(went[gone]))
    with pytest.raises(BudgetError, match="cannot"):
        entered(model, ToMe(keep=0.5, protect=[(gone, gone + 1), (pair, pair + 1)]), given)


@pytest.mark.parametrize(
    "wrong, match",
    [
        ({"tokens": 20}, "before the prompt is known"),
        ({"r": 3, "keep": 0.5}, "r=3"),
        ({"r": -1}, "r=-1"),
        ({"keep": 0.5, "schedule": "rising"}, "rising"),
    ],
)
def test_wrong_parameters(wrong, match):
    with pytest.raises(ValueError, match=match):
        ToMe(**wrong)


def test_a_budget_that_no_schedule_reaches(model):
    with pytest.raises(BudgetError, match="at most halve"), compress(model, ToMe(keep=0.03)):
        model.generate(**inputs([(3, 9)]), **GREEDY)


def test_images_of_held_passes_keep_their_tokens_and_the_next_ones_do_not(model):
    given = inputs([(3, 9)])
    with compress(model, ToMe(keep=0.5)) as session:
        for _ in range(3):
            with session.hold():
                model(**given)
            assert session.cache.layers[0].stored == 156
        model(**given)
        assert session.cache.layers[0].stored == 84


def test_positions_may_stay_those_of_the_patches(model):
    given = inputs([(3, 9)])
    session, _, renumbered, _ = entered(model, ToMe(keep=0.25), given)
    kept, _, hidden, positions = entered(model, ToMe(keep=0.25, positions="gather"), given)
    assert torch.equal(positions[0], kept.trace.events[0].stream[0]) and torch.equal(hidden, renumbered)
    assert torch.equal(kept.trace.events[0].stream, session.trace.events[0].stream)
    with pytest.raises(ValueError, match="'gather' or 'renumber'"):
        ToMe(positions="kept")

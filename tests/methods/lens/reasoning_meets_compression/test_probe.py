"""The probe against its definition: directions token by token, and a finite difference of the loss along them."""

import pytest
import torch
from helpers.thinking import tiny_thinker
from torch.nn.functional import cross_entropy

from laconic.methods.lens.reasoning_meets_compression.behaviours import Response
from laconic.methods.lens.reasoning_meets_compression.method import ReasoningMeetsCompression
from laconic.methods.lens.reasoning_meets_compression.probe import (
    directions,
    effects,
    importances,
    intervals,
    shares,
    shift,
)
from laconic.methods.lens.reasoning_meets_compression.protection import rounded
from laconic.weights.matrices import matrices

MODEL = tiny_thinker().double()
MAPS = {name: linear for layer in matrices(MODEL, "x") for name, linear in layer.items()}


def answers():
    drawn = torch.Generator().manual_seed(3)
    ids = [torch.randint(7, 60, (20,), generator=drawn).tolist() for _ in range(3)]
    return [
        Response(ids[0], 6, {"checking": [(9, 12), (15, 18)]}),
        Response(ids[1], 2, {"checking": [(3, 6)], "backtracking": [(8, 11)]}),
        Response(ids[2], 5, {}),
    ]


def outputs(ids):
    """Every map's output [T, n], by hooks of the test's own."""
    seen = []
    hooks = [x.register_forward_hook(lambda module, args, out: seen.append(out[0])) for x in MAPS.values()]
    with torch.no_grad():
        MODEL(input_ids=torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return seen


def test_directions_are_means_over_spans_less_means_over_everything():
    ran = [outputs(one.ids) for one in answers()]
    for m, got in enumerate(directions(MODEL, MAPS, answers(), "checking")):
        first = [*range(4, 12), 12, 13, 14, 15, 16, 17]  # five tokens before each span, none twice
        plus = (ran[0][m][first].mean(0) + ran[1][m][range(6)].mean(0)) / 2  # clamped at the beginning
        minus = sum(x[m].mean(0) for x in ran) / 3
        want = (plus - minus) * minus.norm() / (plus - minus).norm()
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("behaviour", ["checking", "backtracking"])
def test_6_importance_is_the_change_of_the_loss_along_the_direction(behaviour):
    """Each map's output moves by a little of u_hat on the span; the loss of the span moves by that, times its length."""
    one, step = answers()[1], 1e-3  # norms of the model run in fp32: less drowns in rounding
    along = directions(MODEL, MAPS, answers(), behaviour)
    ((start, end),) = one.spans[behaviour]
    (got,) = effects(MODEL, MAPS, one, [(start, end)], along)

    def loss(linear, by):
        def move(module, args, out):
            out = out.clone()
            out[0, start:end] += by
            return out

        hook = linear.register_forward_hook(move)
        with torch.no_grad():
            logits = MODEL(input_ids=torch.tensor([one.ids])).logits[0]
        hook.remove()
        return cross_entropy(logits[start - 1 : end - 1], torch.tensor(one.ids[start:end]))

    for linear, u, found in zip(MAPS.values(), along, got, strict=True):
        slope = (loss(linear, step * u) - loss(linear, -step * u)) / (2 * step) / (end - start)
        torch.testing.assert_close(found.sum(), slope, rtol=1e-2, atol=1e-9)


def test_importances_are_means_of_sizes_and_shares_sum_to_one():
    each, channels = importances(MODEL, MAPS, answers(), "checking")
    along = directions(MODEL, MAPS, answers(), "checking")
    spans = [effects(MODEL, MAPS, one, one.spans["checking"], along) for one in answers()[:2]]
    for m in range(len(MAPS)):
        a, b, c = (span[m] for found in spans for span in found)
        torch.testing.assert_close(each[:, m], torch.stack([(a.sum().abs() + b.sum().abs()) / 2, c.sum().abs()]))
        torch.testing.assert_close(channels[m], (a.abs() + b.abs() + c.abs()) / 3)
    assert float(shares(each).sum()) == pytest.approx(1)


def test_behaviours_have_directions_of_their_own():
    """The released code adds all behaviours up in one tensor."""
    one, other = (directions(MODEL, MAPS, answers(), name) for name in ("checking", "backtracking"))
    assert all(not torch.allclose(a, b) for a, b in zip(one, other, strict=True))
    with pytest.raises(ValueError, match="no answer of the model shows recalling"):
        directions(MODEL, MAPS, answers(), "recalling")


def test_intervals_hold_the_share_and_shrink_where_answers_agree():
    each = torch.tensor([[1.0, 3.0], [1.0, 1.0], [3.0, 1.0]])
    low, high = intervals(each)
    assert (low < shares(each)).all() and (shares(each) < high).all()
    same_low, same_high = intervals(each[:1].expand(3, -1))
    torch.testing.assert_close(same_low, same_high)


def test_3_the_shift_keeps_its_sign():
    lost = shift(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]]))
    torch.testing.assert_close(lost, torch.tensor([0.25, -0.25]))


def test_behaviours_weigh_alike_and_the_shift_is_that_of_rounded_weights():
    found, scores = ReasoningMeetsCompression(bits=2, group=16).probe(MODEL, MAPS, answers())
    want = [0] * len(MAPS)
    for name in ("backtracking", "checking"):
        each, channels = importances(MODEL, MAPS, answers(), name)
        total = sum(float(x.sum()) for x in channels)
        want = [before + x / total for before, x in zip(want, channels, strict=True)]
        with rounded(MODEL, MAPS, 2, 16, {}):
            lost = shares(each) - shares(importances(MODEL, MAPS, answers(), name)[0])
        assert list(found[name]["shift"].values()) == pytest.approx(lost.tolist()) and float(lost.abs().max()) > 1e-3
    for got, wanted in zip(scores, want, strict=True):
        torch.testing.assert_close(got, wanted)

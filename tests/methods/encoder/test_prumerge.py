"""PruMerge and PruMerge+ against loops over patches, on a CLIP tower run by hand."""

import numpy as np
import pytest
import torch
from helpers.encoder_by_hand import GREEDY, decode, encode, entered, sharp_vlm
from helpers.vision_tools import inputs

from laconic import BudgetError, compress
from laconic.methods.encoder.prumerge import PruMerge, selection, selection_of
from laconic.ops.outliers import iqr_outliers

FEATURES, LAST = 3, 4


@pytest.fixture(scope="module")
def model():
    return sharp_vlm()


def read(model, pixels):
    """Joined attention of CLS [N], joined keys [N, C], features [N, C]."""
    layers = encode(model, pixels)
    _, q, k = layers[LAST]
    q, k = (x.transpose(0, 1).flatten(1) for x in (q, k))
    a = (q[0] @ k.T / q.shape[-1] ** 0.5).softmax(-1)[1:]
    return a, k[1:], layers[FEATURES + 1][0][1:]


def ratio(a):
    """Share of outliers, by numpy."""
    q1, q3 = np.percentile(a.numpy(), [25, 75])
    return float((a.numpy() > q3 + 1.5 * (q3 - q1)).mean())


def kept_of(a, rho, plus):
    """The equations: the patches that stay, in order."""
    n = len(a)
    top = sorted(range(n), key=lambda j: (-float(a[j]), j))[: int(n * rho + 1e-9)]
    if plus:
        top += [j for j in range(0, n - 1, int(int(1 / rho + 1e-9) / 3)) if j not in top]
    return top


def slow(a, keys, x, kept):
    """The equations: tokens [k + 1, C]."""
    n, out = len(a), []
    for i in kept:
        cosines = {j: float(keys[i] @ keys[j] / (keys[i].norm() * keys[j].norm())) for j in range(n) if j != i}
        near = sorted(cosines, key=lambda j: -cosines[j])[:32]
        out.append(x[i] + sum(a[j] * x[j] for j in near))
    out.append(sum(a[j] * x[j] for j in range(n) if j not in kept))
    return torch.stack(out)


@pytest.mark.parametrize("plus", [False, True])
def test_tokens_equal_the_loop(model, plus):
    """Must show 2 and 7: how many stay, in which order, and what they become; projected."""
    given = inputs([(3, 9), (8, 4)])
    session, out, hidden, _ = entered(model, PruMerge(plus=plus), given)
    for row, before in enumerate((3, 8)):
        a, keys, x = read(model, given["pixel_values"][row])
        kept = kept_of(a, ratio(a), plus)
        assert 1 <= len(kept) < 144 and ratio(a) > 0
        want = model.model.multi_modal_projector(slow(a, keys, x, kept))
        valid = hidden[row, hidden.shape[1] - 12 - len(want) :]
        torch.testing.assert_close(valid[before : before + len(want)], want, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            torch.stack([step[row] for step in out.logits]), decode(model, given, row, want), rtol=1e-3, atol=1e-3
        )
        stays = session.trace.events[0].stream[row]
        pad = int((given["attention_mask"][row] == 0).sum())
        first = int((stays >= 0).nonzero()[0]) + before
        assert stays[first : first + len(kept)].tolist() == [pad + before + j for j in kept]


def test_outliers_equal_numpy():
    """Must show 7."""
    torch.manual_seed(0)
    for n in (5, 144, 576):
        a = torch.randn(n).exp()
        assert float(iqr_outliers(a).float().mean()) == pytest.approx(ratio(a))


def test_positions_and_caches(model):
    """Must show 8: contiguous positions, every layer stores what is left; decoding is compared with a plain run above."""
    session, _, hidden, positions = entered(model, PruMerge(plus=True), inputs([(3, 9)]))
    n = hidden.shape[1]
    assert positions.tolist() == [list(range(n))] and [c.stored for c in session.cache.compressed()] == [n + 3] * 8


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("keep", [0.5, 0.25, 0.1])
def test_a_budget_is_met_exactly(model, plus, keep):
    session, _, hidden, _ = entered(model, PruMerge(keep=keep, plus=plus), inputs([(3, 9)]))
    assert hidden.shape[1] == 12 + round(144 * keep)
    assert session.stats.asked == pytest.approx(keep) and session.stats.achieved == pytest.approx(keep, abs=1 / 144)


def test_a_budget_takes_the_largest_outlier_ratio_that_fits():
    torch.manual_seed(0)
    a, free = torch.rand(144), torch.zeros(144, dtype=torch.bool)
    for count in (2, 7, 36, 37, 100, 144):
        kept = selection_of(a, count, True, free)
        room = count if count == 144 else count - 1
        assert len(set(kept.tolist())) == len(kept) == room
        sizes = {k: len(kept_of(a, k / 144, True)) for k in range(1, 49) if int(int(144 / k) / 3)}
        fits = [k for k, size in sizes.items() if size <= room]
        if fits and max(fits) < 48:
            assert kept[: sizes[max(fits)]].tolist() == kept_of(a, max(fits) / 144, True)
        plain = selection_of(a, count, False, free)
        assert plain.tolist() == sorted(range(144), key=lambda j: -float(a[j]))[:room]


def test_plus_adds_a_grid_and_its_published_share():
    """About 5.5 % outliers give about a quarter of 576 tokens."""
    torch.manual_seed(0)
    a = torch.rand(576)
    kept = selection(a, 32, True)
    assert kept[:32].tolist() == a.argsort(descending=True)[:32].tolist()
    assert kept[32:].tolist() == [j for j in range(0, 575, 6) if j not in kept[:32].tolist()]
    assert 0.2 < (len(kept) + 1) / 576 < 0.27


def test_one_ratio_per_image_or_as_released_one_for_the_batch(model):
    given = inputs([(3, 9), (3, 9)])
    given["pixel_values"][1, :, 24:] = 0.0
    shares = [ratio(read(model, pixels)[0]) for pixels in given["pixel_values"]]
    both = ratio(torch.cat([read(model, pixels)[0] for pixels in given["pixel_values"]]))
    assert shares[0] != shares[1]
    for code, want in ((False, shares), (True, [both, both])):
        session, *_ = entered(model, PruMerge(paper_code=code), given)
        found = [(row >= 0).sum() - 12 - 1 for row in session.trace.events[0].stream]
        assert [int(x) for x in found] == [max(1, int(144 * rho + 1e-6)) for rho in want]


def test_full_budget_changes_nothing(model):
    """Must show 1."""
    given = inputs([(3, 9)])
    want = model.generate(**given, **GREEDY)
    with compress(model, PruMerge(keep=1.0)) as session:
        got = model.generate(**given, **GREEDY)
    torch.testing.assert_close(torch.cat(got.logits), torch.cat(want.logits), rtol=1e-5, atol=1e-5)
    assert not session.trace.events


def test_equal_attention_goes_to_the_earlier_patch():
    assert selection(torch.tensor([1.0, 2.0, 2.0, 1.0, 2.0]), 4, False).tolist() == [1, 2, 4, 0]


@pytest.mark.parametrize("own", [False, True])
def test_protected_patches_stay(model, own):
    budget = {} if own else {"keep": 0.1}
    session, *_ = entered(model, PruMerge(protect=(3, 13), **budget), inputs([(3, 9)]))
    assert set(range(3, 13)) <= set(session.trace.events[0].stream[0].tolist())
    with pytest.raises(BudgetError, match="protected"), compress(model, PruMerge(keep=0.03, protect=(3, 40))):
        model.generate(**inputs([(3, 9)]), **GREEDY)


def test_one_token_is_the_sum_of_all(model):
    given = inputs([(3, 9)])
    _, _, hidden, _ = entered(model, PruMerge(tokens=1), given)
    a, _, x = read(model, given["pixel_values"][0])
    torch.testing.assert_close(hidden[0, 3:4], model.model.multi_modal_projector(a[None] @ x), rtol=1e-4, atol=1e-4)


def test_wrong_parameters():
    with pytest.raises(BudgetError, match="neighbours=-1"):
        PruMerge(neighbours=-1)


def test_positions_may_stay_those_of_the_patches(model):
    given = inputs([(3, 9)])
    session, _, renumbered, _ = entered(model, PruMerge(keep=0.25), given)
    kept, _, hidden, positions = entered(model, PruMerge(keep=0.25, positions="gather"), given)
    assert torch.equal(positions[0], kept.trace.events[0].stream[0]) and torch.equal(hidden, renumbered)
    assert torch.equal(kept.trace.events[0].stream, session.trace.events[0].stream)
    with pytest.raises(ValueError, match="'gather' or 'renumber'"):
        PruMerge(positions="kept")

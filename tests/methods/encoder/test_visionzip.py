"""VisionZip against loops over patches, on a CLIP tower run by hand."""

import pytest
import torch
from helpers.encoder_by_hand import GREEDY, decode, encode, entered, sharp_vlm
from helpers.vision_tools import inputs

from laconic import BudgetError, compress
from laconic.methods.encoder.visionzip import VisionZip, contextual_tokens

FEATURES = 3  # of 5 encoder layers: feature layer -2


@pytest.fixture(scope="module")
def model():
    return sharp_vlm()


def slow(model, pixels, dominant, contextual):
    """The equations: encoder vectors [d + c, C] of one image, and the patches that lead them."""
    layers = encode(model, pixels)
    _, q, k = layers[FEATURES]
    x = layers[FEATURES + 1][0][1:]
    heads, patches = k.shape[0], k.shape[1] - 1
    a = torch.zeros(patches)
    for h in range(heads):
        a += (q[h, 0] @ k[h].T * q.shape[-1] ** -0.5).softmax(-1)[1:]
    order = sorted(range(patches), key=lambda j: (-float(a[j]), j))
    first = sorted(order[:dominant])
    rest = [j for j in range(patches) if j not in first]
    metric = torch.stack([k[:, 1 + j].mean(0) for j in range(patches)])
    metric = metric / metric.norm(dim=-1, keepdim=True)
    centers = [rest[i * (len(rest) // contextual)] for i in range(contextual)]
    members = {c: [] for c in centers}
    for j in rest:
        if j not in centers:
            members[max(centers, key=lambda c: float(metric[j] @ metric[c]))].append(j)
    mixed = [x[c] + (sum(x[j] for j in members[c]) / len(members[c]) if members[c] else 0) for c in centers]
    return torch.cat([x[first], torch.stack(mixed)]), first + centers


@pytest.mark.parametrize("dominant, contextual", [(61, 11), (20, 1), (1, 9)])
def test_tokens_equal_the_loop(model, dominant, contextual):
    """Must show 2 and 7: exactly dominant + contextual tokens, in that order, projected."""
    given = inputs([(3, 9), (8, 4)])
    _, out, hidden, _ = entered(model, VisionZip(dominant=dominant, contextual=contextual), given)
    n = dominant + contextual
    assert hidden.shape[1] == 12 + n
    for row, before in enumerate((3, 8)):
        x, _ = slow(model, given["pixel_values"][row], dominant, contextual)
        want = model.model.multi_modal_projector(x)
        torch.testing.assert_close(hidden[row, before : before + n], want, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            torch.stack([step[row] for step in out.logits]), decode(model, given, row, want), rtol=1e-3, atol=1e-3
        )


def test_positions_caches_and_trace(model):
    """Must show 8: contiguous positions, every layer stores what is left; decoding is compared with a plain run above."""
    given = inputs([(3, 9)])
    session, _, _, positions = entered(model, VisionZip(keep=0.25), given)
    assert positions.tolist() == [list(range(12 + 36))]
    assert [layer.stored for layer in session.cache.compressed()] == [12 + 36 + 3] * 8
    _, leads = slow(model, given["pixel_values"][0], *VisionZip(keep=0.25).split(144, 36))
    event = session.trace.events[0]
    assert event.stream[0, 3:39].tolist() == [3 + j for j in leads]
    went = event.merged[0, 3:147]
    assert set(went.tolist()) == {3 + j for j in leads}, "nothing is dropped"
    assert all(int(went[j]) == 3 + j for j in leads)
    best = event.scores[0, 3:147].topk(30).indices
    assert set(best.tolist()) == set(leads[:30])


@pytest.mark.parametrize(
    "count, want", [(192, (162, 30)), (128, (108, 20)), (64, (54, 10)), (32, (27, 5)), (1, (1, 0)), (3, (3, 0))]
)
def test_the_papers_splits_follow_from_one_proportion(count, want):
    assert VisionZip(keep=0.5).split(576, count) == want


def test_full_budget_changes_nothing(model):
    """Must show 1."""
    given = inputs([(3, 9)])
    want = model.generate(**given, **GREEDY)
    with compress(model, VisionZip(keep=1.0)) as session:
        got = model.generate(**given, **GREEDY)
    torch.testing.assert_close(torch.cat(got.logits), torch.cat(want.logits), rtol=1e-5, atol=1e-5)
    assert not session.trace.events


def test_equal_scores_go_to_the_earlier_patch_and_no_contextual_token_drops_the_rest(model):
    keys, x = torch.ones(6, 2), torch.arange(6.0)[:, None]
    centers, mixed, to = contextual_tokens(torch.tensor([1]), keys, x, 2)
    assert centers.tolist() == [0, 3] and to.tolist() == [0, 1, 0, 3, 0, 0]
    torch.testing.assert_close(mixed, torch.tensor([[0 + (2 + 4 + 5) / 3], [3.0]]))
    assert contextual_tokens(torch.tensor([1]), keys, x, 0)[2].tolist() == [-1, 1, -1, -1, -1, -1]
    session, _, hidden, _ = entered(model, VisionZip(dominant=5, contextual=0), inputs([(3, 9)]))
    assert hidden.shape[1] == 17 and (session.trace.events[0].merged == -1).sum() == 139


def test_protected_patches_are_dominant(model):
    given = inputs([(3, 9)])
    session, *_ = entered(model, VisionZip(keep=0.1, protect=(3, 9)), given)
    assert session.trace.events[0].stream[0, 3:9].tolist() == list(range(3, 9))
    with pytest.raises(BudgetError, match="protected"), compress(model, VisionZip(keep=0.03, protect=(3, 40))):
        model.generate(**given, **GREEDY)


def test_every_image_gets_its_share_and_needs_one_token(model):
    given = inputs([(3, 9)], images=2)
    session, _, hidden, _ = entered(model, VisionZip(keep=0.125), given)
    assert hidden.shape[1] == 12 + 36
    stays = session.trace.events[0].stream[0]
    assert ((stays >= 3) & (stays < 147)).sum() == 18 and ((stays >= 147) & (stays < 291)).sum() == 18
    with pytest.raises(BudgetError, match="each must keep one"), compress(model, VisionZip(tokens=1)):
        model.generate(**given, **GREEDY)


@pytest.mark.parametrize(
    "wrong, match",
    [
        ({"dominant": 5}, "give both"),
        ({"dominant": 5, "contextual": 2, "keep": 0.5}, "not both"),
        ({"dominant": 0, "contextual": 2}, "at least 1"),
    ],
)
def test_wrong_parameters(wrong, match):
    with pytest.raises(BudgetError, match=match):
        VisionZip(**wrong)


def test_more_tokens_than_there_are(model):
    with pytest.raises(BudgetError, match="more than the 144"), compress(model, VisionZip(dominant=140, contextual=5)):
        model.generate(**inputs([(3, 9)]), **GREEDY)


def test_positions_may_stay_those_of_the_patches(model):
    given = inputs([(3, 9)])
    session, _, renumbered, _ = entered(model, VisionZip(keep=0.25), given)
    kept, _, hidden, positions = entered(model, VisionZip(keep=0.25, positions="gather"), given)
    assert torch.equal(positions[0], kept.trace.events[0].stream[0]) and torch.equal(hidden, renumbered)
    assert torch.equal(kept.trace.events[0].stream, session.trace.events[0].stream)
    with pytest.raises(ValueError, match="'gather' or 'renumber'"):
        VisionZip(positions="kept")

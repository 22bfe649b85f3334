"""The sets of tokens that CaCoVID tries, and its loss. "line n" is what the card must show."""

import pytest
import torch

from laconic.methods.tokens.cacovid.sampling import capped, drawn, objective, peaks


def made(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("v", "count"), [(144, 4), (144, 9), (50, 3)])
def test_every_set_lies_in_one_group(v, count):
    """line 4"""
    torch.manual_seed(0)
    scores = torch.randn(v)
    found = drawn(scores, 64, count, made())
    order, size = scores.argsort(descending=True), v // (v // (2 * count))
    rank = torch.empty(v, dtype=torch.long).scatter_(0, order, torch.arange(v))
    assert found.shape == (64, count) and found[0].tolist() == order[:count].tolist()
    for one in found[1:]:
        assert len(set(one.tolist())) == count and len({int(r) // size for r in rank[one]}) == 1
    assert len({int(rank[one[0]]) // size for one in found[1:]}) > 2


def test_one_group_is_plain_clamped_drawing():
    """line 4: so many that there is one group of all"""
    scores = torch.zeros(12)
    scores[3] = 100.0  # its probability is clamped to 2 / 12, of others 1 / 24 each
    found = drawn(scores, 4000, 1, made())
    assert drawn(scores, 50, 8, made())[1:].unique().tolist() == list(range(12))
    groups = torch.bincount(found[1:, 0], minlength=12)
    assert groups[3] > groups.sum() / 6 * 0.8  # in its group of two it is drawn at least as often as the other


def test_capped_shares_sum_to_one():
    """line 4"""
    torch.manual_seed(0)
    for _ in range(50):
        p = torch.rand(7).pow(4)
        for most in (1 / 7, 0.2, 0.5, 0.9):
            found = capped(p, most)
            assert float(found.sum()) == pytest.approx(1, abs=1e-5) and float(found.max()) <= most + 1e-5
            assert bool((found.argsort() == p.argsort()).all()) or most < 0.9
    torch.testing.assert_close(capped(torch.tensor([8.0, 1.0, 1.0]), 0.4), torch.tensor([0.4, 0.3, 0.3]))
    torch.testing.assert_close(capped(torch.tensor([1.0, 0.0, 0.0]), 0.4), torch.tensor([0.4, 0.3, 0.3]))


def test_density_peaks_equal_a_loop():
    """line 5"""
    torch.manual_seed(0)
    x = torch.randn(20, 6)
    distance = [[float((a - b).norm()) / 6**0.5 for b in x] for a in x]
    density = [torch.tensor([-sum(d * d for d in sorted(row)[1:5]) / 4]).exp().item() for row in distance]
    apart = []
    for i in range(20):
        above = [distance[i][j] for j in range(20) if density[j] > density[i]]
        apart.append(min(above) if above else max(map(max, distance)))
    order = sorted(range(20), key=lambda i: -density[i] * apart[i])
    assert peaks(x, 5).tolist() == order[:5]
    assert len(set(peaks(torch.ones(9, 4), 3).tolist())) == 3  # identical tokens


def gradient(kept, rewards):
    logits = torch.zeros(6, 2, requires_grad=True)
    objective(logits, torch.zeros(6, 2), kept, rewards).backward()
    return logits.grad


def test_equal_rewards_teach_nothing():
    """line 6"""
    kept = torch.rand(5, 6, generator=made()).argsort(1) < 2
    assert not gradient(kept, torch.ones(5)).any()


def test_what_a_set_kept_that_earned_is_kept_rather():
    """line 6"""
    kept = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]]).bool()
    down = gradient(kept, torch.tensor([1.0, 0.0, 0.0]))
    assert bool((down[:2, 1] < 0).all()) and bool((down[2:, 1] > 0).all())  # gradients are descended


def test_the_objective_equals_a_loop_and_clips():
    """line 7: at the policy that drew, the ratio is 1 and nothing is clipped"""
    torch.manual_seed(0)
    old, new = torch.randn(6, 2), torch.randn(6, 2)
    kept, rewards = torch.rand(4, 6).argsort(1) < 2, torch.tensor([1.0, 0.0, 0.5, 0.0])
    for logits in (old, new):
        a = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
        total = 0.0
        for s in range(4):
            above = below = 0.0
            for i in range(6):
                k = int(kept[s, i])
                ratio = float((logits[i].log_softmax(0)[k] - old[i].log_softmax(0)[k]).exp())
                w = 1 - 2 / 6 if k else 2 / 6
                above += w * -min(ratio * float(a[s]), min(max(ratio, 0.8), 1.28) * float(a[s]))
                below += w
            total += above / below / 4
        assert float(objective(logits, old, kept, rewards)) == pytest.approx(total, abs=1e-5)

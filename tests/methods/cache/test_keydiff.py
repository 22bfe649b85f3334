"""KeyDiff: distance from the mean direction; neither queries nor the scale of keys matter."""

import torch
from helpers.reference import chosen, left_padding, observe, slow_top

from laconic import KeyDiff


def slow_keydiff(keys, real):
    """-cos(k, anchor), anchor the mean of the unit keys of real entries; one head [n, D]."""
    n, d = keys.shape
    unit = [keys[j].double() / keys[j].double().norm() for j in range(n)]
    anchor = sum((unit[j] for j in range(n) if real[j]), torch.zeros(d, dtype=torch.float64)) / sum(real)
    return [-float(unit[j] @ (anchor / anchor.norm())) for j in range(n)]


def check(obs, valid):
    scores, selection = KeyDiff().score(obs), KeyDiff().select(obs)
    for b in range(2):
        for h in range(2):
            want = slow_keydiff(obs.keys[b, h], valid[b].tolist())
            real = valid[b]
            torch.testing.assert_close(scores[b, h][real].double(), torch.tensor(want).double()[real], atol=1e-5, rtol=1e-5)
            masked = [x if r else float("-inf") for x, r in zip(want, real.tolist(), strict=True)]
            assert chosen(selection, b, h) == slow_top(masked, obs.targets[b])


def test_score_and_choice_equal_the_loop():
    check(observe(n=23, targets=[9, 9]), left_padding(23, 0, 0))


def test_padding_does_not_pull_the_anchor():
    valid = left_padding(23, 7, 0)
    check(observe(n=23, valid=valid, targets=[5, 9]), valid)


def test_queries_and_values_do_not_matter():
    obs, other = observe(), observe()
    other.queries, other.values = torch.randn_like(obs.queries), torch.randn_like(obs.values)
    assert torch.equal(KeyDiff().score(obs), KeyDiff().score(other))


def test_the_scale_of_each_key_does_not_matter():
    obs, other = observe(), observe()
    other.keys = obs.keys * torch.rand(2, 2, 17, 1).add(0.1) * 7
    torch.testing.assert_close(KeyDiff().score(obs), KeyDiff().score(other), atol=1e-5, rtol=1e-4)


def test_a_zero_key_gives_no_nan():
    obs = observe()
    obs.keys[0, 0, 3] = 0
    assert bool(KeyDiff().score(obs).isfinite().all())

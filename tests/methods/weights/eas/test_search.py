"""EAS's search; numbers are the lines of what it must show."""

import math

import pytest
import torch

from laconic.methods.weights.eas.search import Search


def test_5_updates_equal_a_slow_reference():
    for rule in ("softmax", "sigmoid"):
        state = Search(range(1, 7), 2, lr=0.5, rule=rule)
        state.scores += torch.tensor([0.1, -0.2, 0.0, 0.3, 0.05, -0.1])
        before = state.scores.tolist()
        subsets, losses = [(1, 3), (3, 4), (2, 5)], [0.4, 1.2, 0.7]
        if rule == "softmax":
            total = sum(math.exp(10 * s) for s in before)
            p = [math.exp(10 * s) / total for s in before]
        else:
            p = [1 / (1 + math.exp(-s)) for s in before]
        expected, mean = list(before), sum(math.exp(-x) for x in losses) / 3
        for subset, value in zip(subsets, losses, strict=True):
            for layer in subset:
                expected[layer - 1] += 0.5 * (math.exp(-value) - mean) * p[layer - 1] * (1 - p[layer - 1])
        state.update(subsets, losses)
        assert state.scores.tolist() == pytest.approx(expected, abs=1e-12)
        assert state.scores[5] == before[5]  # layer 6 was in no subset


def test_5_equal_rewards_change_nothing():
    state = Search(range(1, 7), 2)
    state.update([(1, 2), (2, 3), (5, 6)], [0.7, 0.7, 0.7])
    assert state.scores.tolist() == pytest.approx([0.0] * 6, abs=1e-12)


def test_draws_are_distinct_and_follow_p():
    state = Search(range(10, 18), 3, seed=1)
    state.scores[2] = 0.5
    drawn = [state.draw() for _ in range(300)]
    assert all(len(set(subset)) == 3 and set(subset) <= set(range(10, 18)) for subset in drawn)
    assert sum(12 in subset for subset in drawn) > 290
    assert Search(range(10, 18), 3, seed=1).draw() == Search(range(10, 18), 3, seed=1).draw()
    assert len(set(Search(range(1, 4), 2).draw_distinct(5))) == 3
    assert Search(range(1, 9), 2).best() == (1, 2)


def test_a_round_tries_different_subsets_on_the_same_data():
    state, tried = Search(range(1, 7), 2, seed=0), []

    def loss(subset):
        tried.append(subset)
        return 0.1 * sum(subset)

    again = Search(range(1, 7), 2, seed=0)
    subsets = again.draw_distinct(4)
    again.update(subsets, [0.1 * sum(subset) for subset in subsets])
    state.round(4, loss)
    assert tried == subsets and len(set(tried)) == 4
    assert torch.equal(state.scores, again.scores) and bool(state.scores.any())


def test_without_a_seed_torchs_generator_draws():
    state, drawn = Search(range(1, 30), 3), []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        drawn.append(state.draw())
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(("given", "message"), [({"k": 6}, "k=6"), ({"k": 2, "rule": "greedy"}, "choose 'softmax'")])
def test_settings_that_make_no_sense(given, message):
    with pytest.raises(ValueError, match=message):
        Search(range(1, 7), **given)

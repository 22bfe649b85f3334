"""Choosing tokens by scores of tokens and frames. "line n" is what the card must show."""

import math

import pytest
import torch

from laconic.methods.tokens.cacovid.selection import frame_weights, per_frame, selected


def loop(tokens, frames, count, eta):
    """The published steps, one after the other."""
    sizes, t = [len(one) for one in tokens], len(frames)
    total = sum(sizes)
    rho, important = count / total, math.floor(eta * count + 1e-9)
    kept = set()
    if important:
        top = max(abs(float(f)) for f in frames)
        w = [math.exp(3 * float(f) / top if top else 0.0) for f in frames]
        w = [x / sum(w) for x in w]
        phi = min(1.5 * rho, 1.0)
        w = [min(max(x, 1 / (2 * t)), phi / (t * rho)) for x in w]
        w = [x / sum(w) for x in w]
        n = [min(max(round(x * important), 1), max(1, int(eta * s * phi))) for x, s in zip(w, sizes, strict=True)]
        while sum(n) > important:
            n[n.index(max(n))] -= 1
        while sum(n) < important:
            n[min((i for i in range(t) if n[i] < sizes[i]), key=lambda i: n[i])] += 1
        start = 0
        for one, k in zip(tokens, n, strict=True):
            order = sorted(range(len(one)), key=lambda i: -float(one[i]))
            kept |= {start + i for i in order[:k]}
            start += len(one)
    others = [i for i in range(total) if i not in kept]
    rest = count - len(kept)
    if rest:
        kept |= {others[int(torch.linspace(0, len(others) - 1, rest)[j].round())] for j in range(rest)}
    return sorted(kept)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("frames", "size", "count"), [(1, 144, 14), (5, 21, 13), (3, 7, 20), (8, 16, 12), (2, 10, 20)])
def test_selection_equals_the_loop_and_keeps_exactly_so_many(frames, size, count, eta):
    """lines 2 and 3"""
    torch.manual_seed(0)
    for _ in range(20):
        tokens, of_frames = list(torch.randn(frames, size)), torch.randn(frames)
        found = selected(tokens, of_frames, count, eta)
        assert found.tolist() == loop(tokens, of_frames, count, eta) and len(set(found.tolist())) == count


def test_without_scores_tokens_are_evenly_spaced():
    """line 3"""
    found = selected(list(torch.randn(2, 10)), torch.randn(2), 5, 0.0)
    assert found.tolist() == torch.linspace(0, 19, 5).round().long().tolist()


def test_equal_frames_get_equal_budgets_and_each_gets_one():
    """lines 2 and 3; a constant score is no division by zero"""
    assert per_frame(frame_weights(torch.zeros(4), 0.2), [20] * 4, 8, 0.2, 0.5) == [2, 2, 2, 2]
    weights = frame_weights(torch.tensor([9.0, -9.0, -9.0]), 0.25)
    torch.testing.assert_close(weights, torch.tensor([0.5, 1 / 6, 1 / 6]) / (0.5 + 1 / 3))
    counts = per_frame(weights, [16] * 3, 6, 0.25, 0.5)
    assert min(counts) >= 1 and sum(counts) == 6 and max(counts) <= 0.5 * 16 * 1.5 * 0.25


def test_everything_is_kept_at_a_budget_of_everything():
    """line 1"""
    for eta in (0.0, 0.5, 1.0):
        assert selected(list(torch.randn(3, 4)), torch.randn(3), 12, eta).tolist() == list(range(12))

"""DivPrune: the greedy max-min set."""

import pytest
import torch
from helpers.planted_vlm import planted, prompt
from helpers.slow_attention import numbers, stay
from helpers.vision_exact import embedded, generate, run
from helpers.vision_tools import inputs

from laconic import BudgetError, compress
from laconic.methods.tokens import divprune
from laconic.methods.tokens.divprune import DivPrune, farthest


def slow(x, count):
    """The algorithm, one distance at a time; ties go to the earlier."""
    d = [[1 - float(torch.cosine_similarity(a, b, dim=0)) for b in x] for a in x]
    n = len(x)
    chosen = [max(range(n), key=lambda i: (round(min(d[i][j] for j in range(n) if j != i), 6), -i))]
    while len(chosen) < count:
        rest = [i for i in range(n) if i not in chosen]
        chosen.append(max(rest, key=lambda i: (round(min(d[i][j] for j in chosen), 6), -i)))
    return chosen


def least_distance(x, rows):
    unit = torch.nn.functional.normalize(x[rows], dim=-1)
    return float((1 - unit @ unit.T + 9 * torch.eye(len(rows))).min())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("stored", "block"), [(4096, 1024), (0, 5), (0, 1024)])
def test_equals_the_slow_reference(monkeypatch, seed, stored, block):
    """Must show 2 and 5: the set, and its first element; distances held at once or recomputed."""
    monkeypatch.setattr(divprune, "STORED", stored)
    monkeypatch.setattr(divprune, "BLOCK", block)
    torch.manual_seed(seed)
    x = torch.randn(24, 6)
    assert farthest(x, 1).tolist() == slow(x, 1)
    for count in (2, 7, 23):
        assert farthest(x, count).tolist() == sorted(slow(x, count))
    assert farthest(x, 24).tolist() == list(range(24)) and farthest(x, 0).tolist() == []


def test_equal_distances_go_to_the_earlier_token():
    x = torch.eye(6).repeat(2, 1)
    assert farthest(x, 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert farthest(x, 8).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("seed", range(5))
def test_farther_apart_than_random_and_top_norm_sets(seed):
    """Must show 5: the smallest pairwise distance."""
    torch.manual_seed(seed)
    x = torch.randn(100, 8) * torch.rand(100, 1)
    ours = least_distance(x, farthest(x, 12))
    assert ours >= least_distance(x, x.norm(dim=-1).topk(12).indices)
    assert all(ours >= least_distance(x, torch.randperm(100)[:12]) for _ in range(50))


def test_equals_layers_run_by_hand(vlm):
    """Must show 2 and 8: round(r N) tokens of the projected features, in their order, at renumbered positions."""
    given = inputs([(3, 9)])
    with compress(vlm, DivPrune()) as session:
        ours = generate(vlm, given)[0]
    hidden, visual = embedded(vlm, given)
    chosen = sorted(slow(hidden[0, visual], 14))

    def change(i, h, v, p):
        return stay(h, v, p, [numbers(v)[n] for n in chosen], True) if i == 0 else (h, v, p)

    logits, _, lengths = run(vlm, given, change)
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)
    assert [x.stored - 3 for x in session.cache.compressed()] == lengths == [26] * 8


def test_neutral(vlm):
    """Must show 1."""
    given = inputs([(3, 9), (8, 2)])
    plain = generate(vlm, given)
    for method in (DivPrune(keep=1.0), DivPrune(tokens=144)):
        with compress(vlm, method):
            torch.testing.assert_close(generate(vlm, given), plain, rtol=1e-5, atol=1e-5)


def test_permuting_an_image_permutes_the_set():
    """Must show 10: what is shown decides, not where. (FastV's half of the line is in its own test.)"""
    side, contents = 6, []
    model = planted(side)
    torch.manual_seed(0)
    vectors = torch.randn(1, side * side, 32)
    for order in (torch.arange(side * side), torch.randperm(side * side), torch.randperm(side * side)):
        with compress(model, DivPrune(keep=0.25)) as session, torch.no_grad():
            model(**prompt(vectors[:, order], side, [5]))
        kept = [n - 1 for n in session.trace.events[0].stream[0].tolist() if 1 <= n <= side * side]
        contents.append(sorted(order[kept].tolist()))
    assert contents[0] == contents[1] == contents[2] and len(contents[0]) == 9


def test_protected_tokens_come_first(vlm):
    torch.manual_seed(0)
    x, must = torch.randn(20, 5), torch.zeros(20, dtype=torch.bool)
    must[[3, 4]] = True
    kept = farthest(x, 6, must).tolist()
    d = 1 - torch.cosine_similarity(x[:, None], x[None], dim=-1)
    chosen = [3, 4]
    while len(chosen) < 6:
        chosen.append(max((i for i in range(20) if i not in chosen), key=lambda i: float(d[i, chosen].min())))
    assert kept == sorted(chosen)
    with pytest.raises(BudgetError, match="2 visual tokens are protected"):
        farthest(x, 1, must)

"""Selections against sorted lists, with scores that have many ties."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from laconic.ops.select import best, from_mask, pick, top_k, top_k_across_heads

values = st.sampled_from([-1.0, 0.0, 0.5, 1.0, float("inf"), float("-inf")])


def slow_best(row: list[float], count: int) -> list[int]:
    """The `count` best places, ascending; ties go to the earlier one."""
    return sorted(sorted(range(len(row)), key=lambda j: (-row[j], j))[:count])


@st.composite
def scored(draw, rows=(1, 3)):
    """scores [B, Hkv, n] with few distinct values, and a count per batch row."""
    b, h, n = draw(st.integers(*rows)), draw(st.integers(1, 3)), draw(st.integers(1, 9))
    flat = draw(st.lists(values, min_size=b * h * n, max_size=b * h * n))
    counts = draw(st.lists(st.integers(1, n), min_size=b, max_size=b))
    return torch.tensor(flat).view(b, h, n), counts


@given(scored(), st.integers(-1, 11))
def test_best_one_count_for_all(case, count):
    scores, _ = case
    mask = best(scores, count)
    n = scores.shape[-1]
    for b in range(scores.shape[0]):
        for h in range(scores.shape[1]):
            want = slow_best(scores[b, h].tolist(), max(0, min(count, n)))
            assert mask[b, h].nonzero()[:, 0].tolist() == want


@given(scored(), st.data())
def test_best_with_a_count_per_row(case, data):
    scores, _ = case
    shape = scores.shape[:2]
    counts = torch.tensor(data.draw(st.lists(st.integers(0, 9), min_size=shape.numel(), max_size=shape.numel()))).view(shape)
    mask = best(scores, counts)
    for b in range(shape[0]):
        for h in range(shape[1]):
            want = slow_best(scores[b, h].tolist(), min(int(counts[b, h]), scores.shape[-1]))
            assert mask[b, h].nonzero()[:, 0].tolist() == want


def test_best_of_nothing():
    assert best(torch.zeros(2, 0), 3).shape == (2, 0)
    assert not best(torch.zeros(2, 4), 0).any()


def listed(selection, b, h):
    """The entries a selection keeps in one head; checks that the filler is the number one past the end."""
    row = selection.index[b, h].tolist()
    return row if selection.lengths is None else row[: int(selection.lengths[b, h])]


@given(scored())
def test_top_k_keeps_the_best_of_every_head(case):
    scores, counts = case
    selection = top_k(scores, counts)
    n = scores.shape[-1]
    assert (selection.lengths is None) == (len(set(counts)) == 1)
    for b, count in enumerate(counts):
        for h in range(scores.shape[1]):
            assert listed(selection, b, h) == slow_best(scores[b, h].tolist(), count)
            assert selection.index[b, h].tolist()[count:] == [n] * (max(counts) - count)


def slow_across_heads(rows: list[list[float]], count: int, floor: int) -> list[list[int]]:
    """AdaKV, algorithm 1: every head's best `floor`, then the best of the rest of the layer, `count` per head in total."""
    kept = [set(slow_best(row, floor)) for row in rows]
    rest = [(-s, h, j) for h, row in enumerate(rows) for j, s in enumerate(row) if j not in kept[h]]
    # an entry of infinite score is as good as a floor's: the earlier place wins
    room = count * len(rows) - sum(map(len, kept))
    for _, h, j in sorted(rest)[:room]:
        kept[h].add(j)
    return [sorted(k) for k in kept]


@given(scored(), st.data())
def test_top_k_across_heads_shares_the_budget_of_a_layer(case, data):
    scores, counts = case
    scores = scores.nan_to_num(posinf=2.0)  # no entry ties with a head's floor
    floors = [data.draw(st.integers(0, count)) for count in counts]
    selection = top_k_across_heads(scores, counts, floors)
    for b, (count, floor) in enumerate(zip(counts, floors, strict=True)):
        want = slow_across_heads(scores[b].tolist(), count, floor)
        got = [listed(selection, b, h) for h in range(scores.shape[1])]
        assert got == want
        assert sum(map(len, got)) == count * scores.shape[1]
        assert min(map(len, got)) >= floor


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 8), st.integers(0, 2**31))
def test_from_mask_lists_what_the_mask_selects(b, h, n, seed):
    mask = torch.rand(b, h, n, generator=torch.Generator().manual_seed(seed)) < 0.5
    selection = from_mask(mask)
    counts = mask.sum(-1)
    assert (selection.lengths is None) == (counts.unique().numel() == 1)
    for i in range(b):
        for j in range(h):
            assert listed(selection, i, j) == mask[i, j].nonzero()[:, 0].tolist()
            assert selection.index[i, j].tolist()[int(counts[i, j]) :] == [n] * int(counts.max() - counts[i, j])


@given(st.integers(1, 3), st.integers(2, 9), st.booleans(), st.data())
def test_pick_chooses_real_positions_and_fills_with_padding(b, t, padded, data):
    scores = torch.tensor(data.draw(st.lists(values, min_size=b * t, max_size=b * t))).view(b, t)
    if not padded:
        count = data.draw(st.integers(1, t))
        got = pick(scores, [count] * b, None)
        assert got.tolist() == [slow_best(scores[i].tolist(), count) for i in range(b)]
        return
    scores = scores.nan_to_num(neginf=-2.0)
    real = [data.draw(st.integers(1, t)) for _ in range(b)]
    valid = torch.tensor([[j >= t - r for j in range(t)] for r in real])
    # as in FastKV: the share of a shorter row leaves it enough padding to fill up with
    counts = [max(1, r // 2) for r in real]
    got = pick(scores, counts, valid)
    assert got.shape == (b, max(counts))
    for i in range(b):
        row = got[i].tolist()
        assert row == sorted(set(row))
        own = [j for j in row if valid[i, j]]
        hidden = [(float(scores[i, j]), j) for j in range(t) if valid[i, j]]
        assert own == sorted(j for _, j in sorted(hidden, key=lambda x: (-x[0], x[1]))[: counts[i]])


def test_no_rows_have_no_best():
    assert best(torch.zeros(0, 5), 2).shape == (0, 5) and best(torch.zeros(2, 0), 1).shape == (2, 0)

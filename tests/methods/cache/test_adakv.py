"""AdaKV: one budget for all heads of a layer, floors for each, and memory that is really given back."""

import pytest
import torch
from helpers.reference import chosen, observe
from helpers.slow_scores import slow_window_scores

import laconic
from laconic import AdaKV, SnapKV
from laconic.cache.parts.ragged import RaggedPart


def slow_adakv(scores, count, alpha, window):
    """kvpress's form: every head's best int(alpha n) are safe, then the lowest scores of the whole layer are removed."""
    heads, n = len(scores), len(scores[0])
    ranked = [[(float("inf") if j >= n - window else row[j]) for j in range(n)] for row in scores]
    safe = [set(sorted(range(n), key=lambda j, r=row: (-r[j], j))[: int(alpha * count)]) for row in ranked]
    order = sorted((row[j], -h, -j) for h, row in enumerate(ranked) for j in range(n) if j not in safe[h])
    removed = {(-h, -j) for _, h, j in order[: heads * (n - count)]}
    return [[j for j in range(n) if (h, j) not in removed] for h in range(heads)]


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.7, 1.0])
def test_choice_equals_the_loop(alpha):
    seen = observe(n=41, hkv=4, h=8, targets=[13, 13])
    selection = AdaKV(scorer=SnapKV(window=4, kernel=3), alpha=alpha).select(seen)
    scores = slow_window_scores(seen, 4, 3, "avg")
    for b in range(2):
        want = slow_adakv(scores[b].tolist(), 13, alpha, 4)
        assert [chosen(selection, b, h) for h in range(4)] == want


@pytest.mark.parametrize(("alpha", "floor"), [(0.2, 2), (0.7, 9)])
def test_a_head_that_loses_everywhere_keeps_its_share_rounded_down(alpha, floor):
    """0.2 and 0.7 of 13 are 2.6 and 9.1."""
    seen = observe(n=41, targets=[13, 13])
    seen.keys[:, 0] *= 1e-3  # short keys are the important ones
    selection = AdaKV(scorer="knorm", alpha=alpha).select(seen)
    for b in range(2):
        assert [len(chosen(selection, b, h)) for h in range(2)] == [26 - floor, floor]


def test_alpha_one_is_the_scorer_alone():
    seen = observe(n=41, targets=[13, 9])
    scorer = SnapKV(window=4)
    one, alone = AdaKV(scorer=scorer, alpha=1.0).select(seen), scorer.select(seen)
    for b in range(2):
        for h in range(2):
            assert chosen(one, b, h) == chosen(alone, b, h)


@pytest.mark.parametrize("keep", [0.5, 0.2])
def test_layer_sums_are_exact_floors_hold_and_bytes_are_freed(llama, prompt, keep):
    n = 75
    with laconic.compress(llama, AdaKV(keep=keep, scorer="snapkv:window=4,kernel=3")) as session:
        llama(prompt(2, n))
    count = int(n * keep)
    uneven = 0
    for layer in session.cache.compressed():
        lengths = layer.lengths
        assert lengths.sum(1).tolist() == [2 * count] * 2
        assert int(lengths.min()) >= int(0.2 * count)
        uneven += int(lengths[0, 0] != lengths[0, 1])
        assert layer.nbytes == int(lengths.sum()) * 2 * 8 * 4
        assert layer.parts[0].allocated - 3 * 4 * 8 <= layer.nbytes + 4 * 32 * 2 * 8 * 4 + (int(lengths.sum()) + 4 * 32) * 4
    assert uneven >= 3 and isinstance(session.cache.layers[0].parts[0], RaggedPart)


def test_a_head_may_lose_everything_and_the_next_turn_still_works(llama, prompt):
    ids, more = prompt(1, 40), prompt(1, 6, seed=2)
    with laconic.compress(llama, AdaKV(tokens=2, scorer="knorm", alpha=0.0)) as session:
        llama(ids)
        lengths = torch.stack([layer.lengths[0] for layer in session.cache.compressed()])
        assert int(lengths.min()) == 0 and lengths.sum(1).tolist() == [4] * 4
        logits = llama(more, past_key_values=session.cache).logits
        assert bool(logits.isfinite().all())
        assert [int(layer.lengths.sum()) for layer in session.cache.compressed()] == [4] * 4


def test_the_scorer_brings_its_forced_entries_and_layer_budgets(llama, prompt):
    with laconic.compress(llama, AdaKV(keep=0.4, scorer="pyramidkv:window=4,beta=4")) as session:
        llama(prompt(1, 80))
    sums = [int(layer.lengths.sum()) for layer in session.cache.compressed()]
    assert sums == sorted(sums, reverse=True) and abs(sum(sums) / 8 - 32) <= 1
    for layer in range(4):
        for head in range(2):
            assert session.kept(layer, head)[-4:].tolist() == [76, 77, 78, 79]


def test_what_is_no_scorer_is_refused():
    with pytest.raises(ValueError, match=r"alpha=1\.5"):
        AdaKV(alpha=1.5)
    with pytest.raises(TypeError, match="must be a cache method"):
        AdaKV(scorer=AdaKV())
    with pytest.raises(TypeError, match="must be a cache method"):
        AdaKV(scorer=3)

"""KNorm: low norm stays; queries do not matter, the scale of keys does; the other layers make up for skipped ones."""

import math

import pytest
import torch
from helpers.reference import chosen, observe, slow_top

import laconic
from laconic import BudgetError, KNorm


def test_score_and_choice_equal_the_loop():
    obs = observe(n=23, targets=[9, 9])
    selection = KNorm().select(obs)
    for b in range(2):
        for h in range(2):
            norms = [math.sqrt(sum(float(x) ** 2 for x in key)) for key in obs.keys[b, h]]
            torch.testing.assert_close(KNorm().score(obs)[b, h], -torch.tensor(norms))
            assert chosen(selection, b, h) == slow_top([-x for x in norms], 9)


def test_queries_and_values_do_not_matter():
    obs, other = observe(), observe()
    other.queries, other.values = torch.randn_like(obs.queries), torch.randn_like(obs.values)
    assert torch.equal(KNorm().score(obs), KNorm().score(other))


def test_the_scale_of_a_key_matters():
    obs, other = observe(n=9, targets=[3, 3]), observe(n=9, targets=[3, 3])
    other.keys = obs.keys.clone()
    other.keys[:, :, 4] *= 1e-3
    assert not all(4 in chosen(KNorm().select(obs), b, h) for b in range(2) for h in range(2))
    assert all(4 in chosen(KNorm().select(other), b, h) for b in range(2) for h in range(2))


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_skipped_layers_stay_uncompressed_and_the_others_make_up_for_them(llama, prompt, skip):
    n, keep = 60, 0.7
    with laconic.compress(llama, KNorm(keep=keep, skip_layers=skip)) as session:
        llama(prompt(2, n))
    counts = [layer.lengths.flatten().unique().tolist() for layer in session.cache.compressed()]
    rest = (4 * int(n * keep) - skip * n) // (4 - skip)
    assert counts == [[n]] * skip + [[rest]] * (4 - skip)
    assert session.stats.achieved == pytest.approx(keep, rel=0.02)


def test_a_budget_that_skipped_layers_use_up_is_refused(llama, prompt):
    with laconic.compress(llama, KNorm(keep=0.25, skip_layers=2)), pytest.raises(BudgetError, match="skip_layers=2 of 4"):
        llama(prompt(1, 60))

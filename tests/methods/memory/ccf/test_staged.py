"""Gradients in stages: the true gradient where all segments are kept, few live graphs where not, and a fair draw."""

import random
import weakref

import pytest
import torch
from scipy.stats import chi2

from laconic.methods.memory.ccf.network import SegmentStates
from laconic.methods.memory.ccf.staged import staged


def test_4_with_room_for_all_segments_it_is_the_true_gradient(make_llama, prompt):
    """A language-model loss after every segment, through one graph and in stages."""
    llama = make_llama(layers=2)
    torch.manual_seed(0)
    network, ids = SegmentStates(llama, 6, 3), prompt(2, 24)
    segments, questions = network.full(ids), [prompt(2, 4, seed=9 + t) for t in range(5)]

    def loss(t, states):
        if t == 0:
            return None
        made = network.prefix(llama, ids[0, :0], ids[:, : 6 * t], states)
        at = made.after(4).expand(2, -1)
        return (
            llama(questions[t], past_key_values=made.cache(llama.dtype), position_ids=at)
            .logits.log_softmax(-1)[..., 5]
            .sum()
        )

    def encode(piece):
        return network.encode(llama, piece, 2)

    states = [encode(piece) for piece in segments]
    sum(loss(t, states[:t]) for t in range(1, 5)).backward()
    want = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    total = 0.0
    for term in staged(segments, encode, lambda t, leaves: loss(t, leaves), 4, random.Random(0)):
        term.backward()
        total += float(term.detach())
    got = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert want.keys() == got.keys() and any("encoder" in name for name in want)
    for name, x in want.items():
        torch.testing.assert_close(got[name], x, rtol=1e-4, atol=1e-5 * float(x.abs().max()) + 1e-7)
    with torch.no_grad():
        assert total == pytest.approx(float(sum(loss(t, states[:t]) for t in range(1, 5))), rel=1e-5)


def run(count, reservoir, seed, live=None):
    """Segments whose gradient reaches the weights from a loss at the end; `live` gets the most graphs alive at once."""
    weights, alive = torch.ones(count, requires_grad=True), []

    def encode(number):
        made = weights[number] * 2
        alive.append(weakref.ref(made))
        return made

    def decode(t, leaves):
        if live is not None:
            live.append(sum(ref() is not None for ref in alive))
        return sum(leaves) if t == count else None

    for term in staged(range(count), encode, decode, reservoir, random.Random(seed)):
        if live is not None:
            live.append(sum(ref() is not None for ref in alive))
        term.backward()
    return {i for i in range(count) if weights.grad is not None and weights.grad[i] != 0}


@pytest.mark.parametrize("count", [3, 10, 60])
def test_5_few_graphs_live_at_once_whatever_the_number_of_segments(count):
    live = []
    assert len(run(count, 2, 0, live)) == 2 and max(live) <= 3


def test_5_which_segments_stay_is_uniform():
    count, runs = 10, 1500
    seen = [0] * count
    for seed in range(runs):
        for number in run(count, 2, seed):
            seen[number] += 1
    expected = runs * 2 / count
    statistic = sum((x - expected) ** 2 / expected for x in seen)
    assert statistic < chi2.ppf(0.999, count - 1)

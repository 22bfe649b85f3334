"""Tempo's network and its routing, against slow references. "line n" is what the card must show."""

import math
from itertools import pairwise

import pytest
import torch
from helpers.streaming_tools import FRAME_TOKENS, WIDTH, live_numbers, stirred, video_testbed

from laconic import BudgetError
from laconic.methods.tokens.tempo.film import NotedFilm
from laconic.methods.tokens.tempo.network import Notes, likely
from laconic.methods.tokens.tempo.routing import allocate, ceilings, which


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return stirred(Notes(video_testbed()[0], 2, 6))


def frames(count, seed=0):
    return torch.randn(count, 3, 3, WIDTH, generator=torch.Generator().manual_seed(seed))


def film(net, shown, budget=None, question=None, **how):
    made = NotedFilm(net, 4, 2, budget, torch.randn(5, WIDTH) if question is None else question, **how)
    made.add(shown)
    return made


def slow_allocate(scores, budget, least, most):
    """The card's steps a to e, one by one."""
    count = len(scores)
    if count * least > budget:
        least = max(1, budget // count)
    low, high = min(scores), max(scores)
    if high - low < 1e-8:
        return [min(most, budget // count)] * count
    shares = [(s - low) / (high - low) for s in scores]
    counts = [least + math.floor(n * (most - least)) for n in shares]
    if sum(counts) > budget:
        extra = budget - count * least
        dealt = [math.floor(extra * n / sum(shares)) for n in shares]
        for i in sorted(range(count), key=lambda i: (-shares[i], i))[: extra - sum(dealt)]:
            dealt[i] += 1
        counts = [least + e for e in dealt]
    return [min(most, k) for k in counts]


def test_allocation_equals_a_slow_reference():
    """line 1"""
    torch.manual_seed(0)
    for trial in range(200):
        count = int(torch.randint(2, 20, ()))
        scores = torch.rand(count).mul(8).round().div(8) if trial % 2 else torch.rand(count)
        budget, least, most = (int(torch.randint(low, high, ())) for low, high in ((count, 200), (1, 5), (6, 40)))
        found = allocate(scores, budget, least, most)
        assert found == slow_allocate([float(s) for s in scores.double()], budget, least, most)
        assert sum(found) <= budget and max(found) <= most and min(found) >= min(least, max(1, budget // count))
        order = sorted(range(count), key=lambda i: (-float(scores[i]), i))
        assert all(found[a] >= found[b] for a, b in pairwise(order))


def test_equal_scores_share_evenly_and_a_large_budget_keeps_all():
    """lines 1 and 2"""
    assert allocate(torch.full((5,), 0.3), 33, 4, 16) == [6] * 5
    assert allocate(torch.full((5,), 0.3), 80, 4, 16) == [16] * 5
    assert allocate(torch.tensor([0.1, 0.9, 0.5, 0.5]), 1000, 4, 16) == [4, 16, 10, 10]
    assert allocate(torch.tensor([0.1, 0.9, 0.5]), 3, 4, 16) == [1, 1, 1]


def test_no_segment_ever_gets_more_than_its_ceiling():
    """What is dropped on the way, no allocation later would have read; and what is held grows as a logarithm."""
    torch.manual_seed(0)
    for budget, most in ((30, 6), (60, 16), (100, 16)):
        scores = torch.rand(30).tolist()
        caps = [most] * 0
        for seen in range(1, 31):
            caps = [min(a, b) for a, b in zip([*caps, most], ceilings(scores[:seen], budget, most), strict=True)]
            found = allocate(torch.tensor(scores[:seen]), budget, 2, most)
            assert all(k <= cap for k, cap in zip(found, caps, strict=True))
        assert sum(caps) <= budget * (1 + math.log(max(1, 30 * most / budget))) + 30


def test_which_notes_are_read():
    assert which(2, 5, "head").tolist() == [0, 1] and which(2, 5, "tail").tolist() == [3, 4]
    some = which(3, 9, "random", 4)
    assert len(set(some.tolist())) == 3 and torch.equal(some, some.sort().values)
    assert torch.equal(which(3, 9, "random", 4), some)


def test_notes_equal_a_loop_over_the_sequence(net):
    segment, asks = torch.randn(1, 8, WIDTH), torch.randn(2, 5, WIDTH)
    notes, answers = net(segment, asks, torch.tensor([5, 3]))
    for q, count in enumerate((5, 3)):
        row = torch.cat([segment[0], asks[q, :count], net.memory])
        read = net.norm(net.encoder(row[None]))[0]
        torch.testing.assert_close(notes[q], net.bridge(read[-6:]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(answers[q], net.answers(read[-7]), rtol=1e-4, atol=1e-5)


def test_the_first_notes_are_those_of_fewer_memory_tokens(net):
    """line 3"""
    segment, asks, counts = torch.randn(2, 8, WIDTH), torch.randn(2, 5, WIDTH), torch.tensor([5, 4])
    whole, said = net(segment, asks, counts)
    for k in (1, 4):
        few, same = net(segment, asks, counts, k)
        torch.testing.assert_close(few, whole[:, :k], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(same, said, rtol=1e-5, atol=1e-5)


def test_the_score_is_a_softmax_of_two_answers():
    """line 4"""
    logits = torch.randn(7, 2)
    torch.testing.assert_close(likely(logits), logits.softmax(-1)[:, 0], rtol=1e-6, atol=1e-6)


def test_padding_changes_nothing(net):
    """line 5"""
    segment, asks = torch.randn(2, 8, WIDTH), torch.randn(2, 9, WIDTH)
    both = net(segment, asks, torch.tensor([4, 9]))
    alone = net(segment[:1], asks[:1, :4], torch.tensor([4]))
    for found, want in zip(both, alone, strict=True):
        torch.testing.assert_close(found[0], want[0], rtol=1e-5, atol=1e-5)


def test_segments_are_independent(net):
    """line 6"""
    shown, question = frames(14), torch.randn(5, WIDTH)
    changed = shown.clone()
    changed[5] += 1
    one, other = (film(net, x, question=question) for x in (shown, changed))
    one.segments(), other.segments()
    assert [torch.equal(a, b) for a, b in zip(one.notes, other.notes, strict=True)] == [True, False, True, True]
    assert [a == b for a, b in zip(one.scores, other.scores, strict=True)] == [True, False, True, True]


def test_times_stand_before_notes_in_order(net):
    """line 7"""
    made = film(net, frames(10))
    segments, soft, at = made.segments(), made.soft(), 0
    assert [(begin, end) for _, begin, end in segments] == [(0, 4), (4, 8), (8, 10)]
    for notes, begin, end in segments:
        assert torch.equal(soft[at], net.time(begin, end)) and torch.equal(soft[at + 1 : at + 1 + len(notes)], notes)
        at += 1 + len(notes)
    assert at == len(soft) == 3 + sum(len(notes) for notes, _, _ in segments)


def test_with_room_for_all_nothing_is_routed(net):
    """line 2: where all scores are equal"""
    shown, question = frames(4).repeat(3, 1, 1, 1), torch.randn(5, WIDTH)
    routed, plain = (film(net, shown, 21, question, routed=x).soft() for x in (True, False))
    assert torch.equal(routed, plain) and len(plain) == 21


def test_dropping_on_the_way_changes_no_answer(net):
    """Frame by frame under a small budget, or all notes held and cut at the end."""
    shown, question = frames(48), torch.randn(5, WIDTH)
    made = film(net, shown[:1], 40, question)
    for frame in shown[1:].split(1):
        made.add(frame)
    held, whole = sum(len(notes) for notes in made.notes), film(net, shown, None, question)
    counts = allocate(torch.tensor(whole.scores), 40 - 12, 2, 6)
    want = [notes[:k] for notes, k in zip(whole.notes, counts, strict=True)]
    assert held < 12 * 6 and sum(counts) == 28
    for (found, _, _), notes in zip(made.segments(), want, strict=True):
        torch.testing.assert_close(found, notes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kept", ["tail", "random"])
def test_notes_that_are_read_for_comparison_are_not_dropped(net, kept):
    shown, question = frames(48), torch.randn(5, WIDTH)
    made, whole = film(net, shown, 40, question, kept=kept), film(net, shown, None, question)
    counts = allocate(torch.tensor(whole.scores), 40 - 12, 2, 6)
    for i, ((found, _, _), notes, k) in enumerate(zip(made.segments(), whole.notes, counts, strict=True)):
        assert torch.equal(found, notes[which(k, 6, kept, i)])


def test_hours_hold_little_more_than_the_budget(net):
    """A segment costs a note and two numbers once its rank is low; frames wait only until their segment is whole."""
    made, held = film(net, frames(4), 1000), []
    made.budget = 60
    for seed in range(1, 60):
        made.add(frames(4, seed))
        held.append(live_numbers(made) / WIDTH)
    assert max(held) <= 60 * (1 + math.log(60 * 6 / 60)) + 60 < 60 * 6
    with pytest.raises(BudgetError, match="60 segments of 4 frames have a time and a note each, and the budget leaves 60"):
        made.segments()


def test_a_fresh_network_begins_near_the_embeddings():
    model, _ = video_testbed()
    net, table = Notes(model, 1, 64), model.get_input_embeddings().weight
    torch.testing.assert_close(net.memory.std(), table.std(), rtol=0.1, atol=0)
    notes, _ = net(torch.randn(1, 4, WIDTH), torch.randn(1, 2, WIDTH), torch.tensor([2]))
    assert 0.5 * table.std() < notes.std() < 2 * table.std() and FRAME_TOKENS == 9

"""VideoStreaming's network and its choice, against slow references. "line n" is what the card must show."""

import math

import pytest
import torch
from helpers.streaming_tools import FRAME_TOKENS, WIDTH, stirred, video_testbed

from laconic.methods.tokens.videostreaming.film import StreamedFilm
from laconic.methods.tokens.videostreaming.network import Streaming, pooled
from laconic.methods.tokens.videostreaming.selection import drawn, gumbel, nearest


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return stirred(Streaming(video_testbed()[0], 2, 4))


def frames(count, seed=0):
    return torch.randn(count, 3, 3, WIDTH, generator=torch.Generator().manual_seed(seed))


def film(net, shown, select=2, question=None):
    made = StreamedFilm(net, 4, select, torch.randn(5, WIDTH) if question is None else question)
    made.add(shown)
    return made


def test_a_fresh_memory_is_averages_of_the_frames():
    net = Streaming(video_testbed()[0], 1, 4)
    shown = frames(4)
    memory, code = net.clip(shown[None])
    want = torch.stack([x[r : r + 2, c : c + 2].mean((0, 1)) for x in shown for r in (0, 1) for c in (0, 1)])
    torch.testing.assert_close(memory[0], want)
    torch.testing.assert_close(pooled(shown[None], 4)[0], want)
    assert memory.shape == (1, 16, WIDTH) and code.shape == (1, WIDTH)


def test_causal_order_is_the_mask_of_the_paper(net):
    """line 1: frames see frames alone, summaries all frames and earlier summaries, the indicator everything"""
    shown, m, n = frames(2)[None], 8, 2 * FRAME_TOKENS
    x = torch.cat([net.input(shown.flatten(1, 3)), pooled(shown, 4) + net.mark, net.indicator[None]], 1)
    mask = torch.zeros(n + m + 1, n + m + 1, dtype=torch.bool)
    for q in range(n + m + 1):
        for k in range(n + m + 1):
            mask[q, k] = (k <= q) if q < n else (k < n or k <= q) if q < n + m else True
    own = net.encoder.decoder(inputs_embeds=x, attention_mask=mask[None, None], use_cache=False)
    plain = net.encoder(x)
    torch.testing.assert_close(own.last_hidden_state, plain, rtol=1e-5, atol=1e-5)
    x[:, n:] += 1
    assert torch.equal(net.encoder(x)[:, :n], plain[:, :n])


def test_a_clip_equals_a_loop_over_its_parts(net):
    """The sequence of the second clip, read at its summaries and its indicator."""
    first, second = frames(4)[None], frames(4, 1)[None]
    before, _ = net.clip(first)
    memory, code = net.clip(second, 4, before)
    row = [net.time(0, 4), *net.history(before[0]), net.time(4, 8)]
    row += [net.input(cell) for frame in second[0] for line in frame for cell in line]
    row += [x + net.mark for x in pooled(second, 4)[0]] + [net.indicator[0]]
    read = net.norm(net.encoder(torch.stack(row)[None]))[0]
    torch.testing.assert_close(code[0], read[-1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(memory[0], pooled(second, 4)[0] + net.out(read[-17:-1]), rtol=1e-4, atol=1e-5)


def test_streaming_equals_clip_by_clip_and_the_future_changes_nothing(net):
    """line 3"""
    shown = frames(14)
    whole = film(net, shown).clips()
    bits = film(net, shown[:3])
    for start in range(3, 14, 5):
        bits.add(shown[start : start + 5])
    before = None
    for k, (one, other) in enumerate(zip(whole, bits.clips(), strict=True)):
        memory, code = net.clip(shown[None, 4 * k : 4 * k + 4], 4 * k, before)
        before = memory
        for found in (one, other):
            torch.testing.assert_close(found.memory, memory[0])
            torch.testing.assert_close(found.code, code[0])
    assert [(one.begin, one.end) for one in whole] == [(0, 4), (4, 8), (8, 12), (12, 14)]
    changed = shown.clone()
    changed[8:] += 1
    other = film(net, changed).clips()
    assert all(torch.equal(other[k].memory, whole[k].memory) for k in (0, 1))
    assert not torch.equal(other[2].memory, whole[2].memory)


def test_what_is_read_and_what_is_kept_do_not_depend_on_the_length(net):
    """line 2: V (1 + T P) tokens for K = 4 and K = 60; kept are K memories and codes"""
    sizes = {}
    for clips in (4, 60):
        made = film(net, frames(4 * clips))
        assert len(made.soft()) == 2 * (1 + 16)
        sizes[clips] = sum(one.memory.numel() + one.code.numel() for one in made.kept)
    assert sizes == {clips: clips * 17 * WIDTH for clips in (4, 60)}


def test_few_clips_are_all_selected_and_memories_do_not_know_the_question(net):
    """lines 4 and 5"""
    made = film(net, frames(8), select=2)
    assert made.chosen() == made.kept
    one, other = (film(net, frames(12), select=2, question=torch.randn(3 + k, WIDTH)) for k in range(2))
    assert all(
        torch.equal(a.memory, b.memory) and torch.equal(a.code, b.code) for a, b in zip(one.kept, other.kept, strict=True)
    )


def test_the_choice_is_the_ranking_by_cosine(net):
    """line 5"""
    made, question = film(net, frames(24), select=2), torch.randn(6, WIDTH)
    rows = torch.cat([net.history(made.kept[-1].memory), question, net.indicator])
    asked = net.norm(net.encoder(rows[None]))[0, -1]
    cosines = [float(asked @ one.code / asked.norm() / one.code.norm()) for one in made.kept]
    torch.testing.assert_close(made.scores(made.kept, question), torch.tensor(cosines), rtol=1e-4, atol=1e-5)
    best = sorted(sorted(range(6), key=lambda k: -cosines[k])[:2])
    assert [one.begin // 4 for one in made.chosen(question)] == best


def test_questions_of_different_length_in_one_batch(net):
    latest, asks = torch.randn(2, 16, WIDTH), torch.randn(2, 7, WIDTH)
    both = net.question(latest, asks, torch.tensor([3, 7]))
    for q, count in enumerate((3, 7)):
        alone = net.question(latest[q : q + 1], asks[q : q + 1, :count], torch.tensor([count]))
        torch.testing.assert_close(both[q], alone[0], rtol=1e-4, atol=1e-5)


def test_memory_carries_what_an_earlier_clip_showed(net):
    """line 8, of untrained weights: H_2 changes with clip 1, and does not where memories are not passed on"""
    one, other, rest = frames(4, 1), frames(4, 2), frames(4, 3)
    alone = stirred(Streaming(video_testbed()[0], 2, 4, propagate=False))
    for network, same in ((net, False), (alone, True)):
        second = [film(network, torch.cat([first, rest])).kept[1].memory for first in (one, other)]
        assert torch.equal(*second) is same


def relaxed(logits):
    """A softmax, and a second one among what the first has left."""
    first = logits.softmax(0)
    return first + (logits + torch.log(1 - first)).softmax(0)


def test_the_drawn_choice_is_hard_forward_and_soft_backward():
    """line 6"""
    scores = torch.randn(5, 6, requires_grad=True)
    weights = drawn(scores, 2, 0.5, gumbel(scores.shape))
    assert torch.allclose(weights.sum(-1), torch.full((5,), 2.0))
    assert {round(x, 5) for x in weights.detach().flatten().tolist()} == {0, 1}
    (weights * torch.randn(5, 6)).sum().backward()
    assert bool((scores.grad != 0).all())
    cold = drawn(scores.detach(), 2, 1e-3)
    assert torch.equal((cold > 0.5).nonzero()[:, 1].view(5, 2), nearest(scores, 2))
    grown = torch.autograd.functional.jacobian(lambda x: drawn(x, 2, 0.5)[0], scores.detach()[:1])
    want = torch.autograd.functional.jacobian(lambda x: relaxed(x[0] / 0.5), scores.detach()[:1])
    torch.testing.assert_close(grown, want, rtol=1e-4, atol=1e-5)


def test_draws_follow_the_softmax():
    """line 6: chi-square of 10,000 draws of one among four, at most 16.27 in 999 of 1,000 cases"""
    torch.manual_seed(0)
    scores = torch.tensor([0.1, 0.5, -0.3, 0.2])
    rows = scores.expand(10_000, -1)
    found = drawn(rows, 1, 0.5, gumbel(rows.shape)).sum(0)
    want = 10_000 * (scores / 0.5).softmax(0)
    assert float(((found - want) ** 2 / want).sum()) < 16.27


def test_nearest_is_in_the_order_of_time():
    assert nearest(torch.tensor([0.1, 0.9, 0.3, 0.8]), 3).tolist() == [1, 2, 3]
    assert nearest(torch.tensor([0.1, 0.9]), 3).tolist() == [0, 1] and math.isfinite(float(gumbel(torch.Size([1]))))

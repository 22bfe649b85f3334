"""The rolling cache: what stays, where it stands, and the policies that it contains."""

import pytest
import torch

from laconic.methods.codecs.deep_forcing.rotary import Channels, placed
from laconic.methods.codecs.deep_forcing.window import Policy, Window, scores

CHANNELS, SIDE, N = Channels(4, 2, 2), 2, 4
TOY = {"window": 8, "sink": 4, "budget": 6, "recent": 1}


def raw(frame, what):
    """Of one frame before it is placed, [1, 2, 4, 8]."""
    return torch.randn(1, 2, N, 8, generator=torch.Generator().manual_seed(10 * frame + what))


def rolled(policy, chunks, first=0, size=1):
    """A window after so many chunks of `size` frames, and how long it was after each."""
    window, lengths = Window(policy, N, CHANNELS), []
    for number in range(chunks):
        frame = first + number * size
        frames = frame + torch.arange(size * N) // N
        q, k, v = (torch.cat([raw(number * size + i, what) for i in range(size)], 2) for what in range(3))
        q, k = placed(q, frames, SIDE, CHANNELS), placed(k, frames, SIDE, CHANNELS)
        window.begin(q, k, frame)
        lengths.append(len(window) + size * N)  # with the chunk that is being made
        window.finish(q, k, v, frame)
    return window, lengths


def test_3_scores_are_the_sum_over_queries_and_heads():
    q, k = torch.randn(1, 3, 5, 8), torch.randn(1, 3, 7, 8)
    slow = [sum(float(q[0, h, r] @ k[0, h, j]) for h in range(3) for r in range(5)) / (8**0.5 * 3) for j in range(7)]
    assert scores(q, k).tolist() == pytest.approx(slow, abs=1e-5)


def test_4_lengths_after_every_selection_are_the_budget():
    window, lengths = rolled(Policy(**TOY), 30)
    assert lengths[:8] == [N * (i + 1) for i in range(8)]
    assert lengths[8:14] == [24, 28, 32, 24, 28, 32] and max(lengths) == 8 * N
    assert window.selections == 8  # chunks 8, 11, 14 ... 29


def test_4_sinks_and_the_newest_stay_with_their_values_and_what_left_never_returns():
    policy, gone = Policy(**TOY), set()
    for chunks in range(9, 25):
        window, _ = rolled(policy, chunks)
        held = window.frames.tolist()
        assert held == sorted(held) and held[: 4 * N] == [f for f in range(4) for _ in range(N)]
        assert held[-N:] == [chunks - 1] * N
        assert torch.equal(window.values[:, :, : 4 * N], torch.cat([raw(f, 2) for f in range(4)], 2))
        tokens = {tuple(v) for v in window.values[0, 0].tolist()}
        everything = {tuple(v) for f in range(chunks) for v in raw(f, 2)[0, 0].tolist()}
        assert not tokens & gone
        gone |= everything - tokens


def test_3_the_chosen_are_those_of_a_slow_sort():
    policy = Policy(window=8, sink=3, budget=6, recent=1, realign="none")
    window, _ = rolled(policy, 8)
    q = placed(raw(8, 0), torch.full((N,), 8), SIDE, CHANNELS)
    candidates = window.keys[:, :, 3 * N :].clone()
    values = [float(sum((q[0, h].sum(0) * candidates[0, h, j]).sum() for h in range(2))) for j in range(5 * N)]
    wanted = sorted(sorted(range(5 * N), key=lambda j: -values[j])[: 2 * N])
    window.begin(q, placed(raw(8, 1), torch.full((N,), 8), SIDE, CHANNELS), 8)
    assert torch.equal(window.keys[:, :, 3 * N :], candidates[:, :, wanted])


def test_recent_queries_are_the_newest_clean_ones_and_the_chunk():
    policy = Policy(window=8, sink=2, budget=6, recent=3)
    window, _ = rolled(policy, 8)
    seen = []
    window._choose = lambda q, k, frame: seen.append(q) or torch.arange(N)
    q = placed(raw(8, 0), torch.full((N,), 8), SIDE, CHANNELS)
    window.begin(q, q, 8)
    clean = [placed(raw(f, 0), torch.full((N,), f), SIDE, CHANNELS) for f in (6, 7)]
    assert torch.equal(seen[0], torch.cat([*clean, q], 2))


@pytest.mark.parametrize(
    ("realign", "sink", "top"), [("sink_top", [3, 4, 5, 6], 7), ("sink", [3, 4, 5, 6], None), ("none", [0, 1, 2, 3], None)]
)
def test_kept_keys_stand_right_before_the_recent_ones(realign, sink, top):
    window, _ = rolled(Policy(**TOY, realign=realign), 9)
    stands = window.stands.tolist()
    assert stands[: 4 * N] == [f for f in sink for _ in range(N)] and stands[-N:] == [8] * N
    assert stands[4 * N : 5 * N] == ([top] * N if top else window.frames[4 * N : 5 * N].tolist())
    for i, (frame, at) in enumerate(zip(window.frames[: 4 * N].tolist(), stands[: 4 * N], strict=True)):
        wanted = placed(raw(frame, 1), torch.full((N,), at), SIDE, CHANNELS)[:, :, i % N]
        torch.testing.assert_close(window.keys[:, :, i], wanted, atol=1e-5, rtol=0)


def test_5_without_sinks_and_by_recency_it_is_first_in_first_out():
    window, _ = rolled(Policy(window=6, sink=0, budget=6, recent=1, score="recency", realign="none"), 20)
    assert window.frames.tolist() == [f for f in range(14, 20) for _ in range(N)]
    assert torch.equal(window.stands, window.frames)
    wanted = torch.cat([placed(raw(f, 1), torch.full((N,), f), SIDE, CHANNELS) for f in range(14, 20)], 2)
    torch.testing.assert_close(window.keys, wanted, atol=1e-5, rtol=0)


def test_5_with_nothing_to_choose_it_is_sinks_and_a_sliding_window():
    window, _ = rolled(Policy(window=6, sink=2, budget=6, recent=4, realign="none"), 20)
    assert window.frames.tolist() == [f for f in (0, 1, 16, 17, 18, 19) for _ in range(N)]


def test_6_what_the_newest_frame_sees_of_the_sinks_does_not_depend_on_the_clock():
    logits = []
    for first in (0, 1000):
        window, _ = rolled(Policy(**TOY), 12, first=first)
        q = placed(raw(12, 0), torch.full((N,), first + 12), SIDE, CHANNELS)
        logits.append(q @ window.keys.transpose(-1, -2))
    torch.testing.assert_close(logits[0], logits[1], atol=2e-3, rtol=0)


def test_chunks_of_several_frames_and_one_that_is_too_long():
    window, lengths = rolled(Policy(window=21, sink=10, budget=16, recent=4), 20, size=3)
    assert lengths[:7] == [3 * N * (i + 1) for i in range(7)] and lengths[7] == 16 * N and max(lengths) <= 21 * N
    assert window.frames[-3 * N :].tolist() == [f for f in (57, 58, 59) for _ in range(N)]
    with pytest.raises(ValueError, match="a chunk of 3 frames is longer than recent=1"):
        rolled(Policy(**TOY), 5, size=3)


def test_baselines_choose_as_they_say():
    a, b = (rolled(Policy(**TOY, score="random"), 20)[0].frames for _ in range(2))
    assert torch.equal(a, b) and not torch.equal(a, rolled(Policy(**TOY, score="recency"), 20)[0].frames)


@pytest.mark.parametrize(
    "wrong", [{"sink": 6}, {"budget": 9}, {"recent": 0}, {"sink": -1}, {"score": "best"}, {"realign": "all"}]
)
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError, match=r"sink \+ recent must be at most the budget|choose one of"):
        Policy(**{**TOY, **wrong})

"""VidCom2 against loops; numbers in the docstrings are the lines of what it must show."""

import math

import pytest
import torch
from helpers.video_tools import inputs, kept_cells, random_video_model
from helpers.vision_zoo import CASES, ZooImage, numbers

import laconic
from laconic.methods.tokens.vidcom2 import VidCom2, frame_shares, kept_of, redundancy


def slow_scores(x):
    """v and f of every token, and the chosen channels, in double precision."""
    x = x.double()
    t, n, width = x.shape
    every = x.reshape(t * n, width)
    variance = [float(((every[:, c] - every[:, c].mean()) ** 2).mean()) for c in range(width)]
    channels = sorted(range(width), key=lambda c: variance[c])[: width // 2]
    x = torch.stack([torch.stack([token[channels] / token[channels].norm() for token in frame]) for frame in x])
    centre = x.reshape(t * n, -1).mean(0)

    def kernel(a, b):
        return sum(math.exp(-(float((a - b).norm()) ** 2) / (2 * s)) for s in (1 / 8, 1 / 4, 1 / 2, 1, 2))

    v = [[kernel(token, centre) for token in frame] for frame in x]
    f = [[kernel(token, frame.mean(0)) for token in frame] for frame in x]
    return v, f


def slow(x, count):
    """Places (t, i) that stay, and the frames' shares."""
    v, f = slow_scores(x)
    t, n = len(v), len(v[0])
    u = [-sum(row) / n for row in v]
    e = [math.exp((value - max(u)) / 0.01) for value in u]
    keep = count / (t * n)
    shares = [min(1.0, keep * (1 + value / sum(e) - 1 / t)) for value in e]
    worst = {(i, j): v[i][j] + f[i][j] for i in range(t) for j in range(n)}
    kept = set()
    for i in range(t):
        frame = sorted(((i, j) for j in range(n)), key=lambda place: (worst[place], place))
        kept |= set(frame[: max(1, round(shares[i] * n))])
    by_worth = sorted(worst, key=lambda place: (worst[place], place))
    while len(kept) > count:
        kept.remove(max(kept, key=lambda place: (worst[place], place)))
    kept |= set([place for place in by_worth if place not in kept][: count - len(kept)])
    return sorted(kept), shares


def video(t=6, n=10, width=12, seed=0):
    """Frames around drifting means, so that they differ in how unusual they are."""
    torch.manual_seed(seed)
    return (
        torch.randn(width)
        + 0.5 * torch.randn(t, 1, width) * torch.linspace(0.2, 1, t)[:, None, None]
        + torch.randn(t, n, width)
    )


def ours(x, count, must=None):
    v, f = redundancy(x)
    shares = frame_shares(-v.mean(1), count / (len(x) * x.shape[1]))
    must = torch.zeros(x.shape[:2], dtype=torch.bool) if must is None else must
    kept = kept_of(-(v + f), shares, count, must)
    return [(int(k) // x.shape[1], int(k) % x.shape[1]) for k in kept], shares


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_the_loops(seed):
    """1."""
    x = video(seed=seed)
    for got, expected in zip(redundancy(x), slow_scores(x), strict=True):
        torch.testing.assert_close(got, torch.tensor(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 4, 6, 15, 29, 45, 59, 60])
def test_the_kept_set_equals_the_loops(seed, count):
    """1: exact in sum, at every budget, also below one token a frame and above a half."""
    x = video(seed=seed)
    kept, shares = ours(x, count)
    expected, expected_shares = slow(x, count)
    assert kept == expected and len(kept) == count
    torch.testing.assert_close(shares, torch.tensor(expected_shares), rtol=1e-3, atol=1e-3)


def test_shares():
    """1: their mean is R unless one is clipped; at the published temperature one frame gets nearly all that is extra."""
    unique = torch.tensor([-1.0, -0.8, -1.2, -0.95])
    assert frame_shares(unique, 0.3).mean() == pytest.approx(0.3)
    assert frame_shares(unique, 0.3)[1] == pytest.approx(0.3 * (2 - 1 / 4), abs=1e-4)
    assert frame_shares(unique, 0.6).max() == 1 and frame_shares(unique, 0.6).mean() < 0.6
    torch.testing.assert_close(frame_shares(torch.zeros(5), 0.3), torch.full((5,), 0.3))


def test_equal_frames_and_equal_tokens():
    """2: equal shares; the earliest tokens stay."""
    x = video(t=1).expand(4, -1, -1)
    kept, shares = ours(x, 16)
    assert [sum(t == frame for t, _ in kept) for frame in range(4)] == [4] * 4
    torch.testing.assert_close(shares, torch.full((4,), 0.4))
    assert ours(torch.ones(3, 5, 8), 6)[0] == [(t, i) for t in range(3) for i in range(2)]
    assert len(ours(video(t=1), 4)[0]) == 4


def test_what_is_odd_is_kept():
    """3: an odd frame has the largest share, an odd token stays."""
    torch.manual_seed(0)
    x = torch.randn(16) + 0.1 * torch.randn(6, 10, 16)
    x[4] = torch.randn(16) + 0.1 * torch.randn(10, 16)
    x[2, 7] = -x[2, 7]
    kept, shares = ours(x, 12)
    assert int(shares.argmax()) == 4 and (2, 7) in kept


def test_order_of_frames_and_scale():
    """4."""
    x, order = video(), torch.tensor([3, 0, 5, 1, 4, 2])
    kept, _ = ours(x, 20)
    assert {(int(order[t]), i) for t, i in ours(x[order], 20)[0]} == set(kept)
    assert ours(7 * x, 20)[0] == kept


def test_protected_tokens_stay():
    x, must = video(), torch.zeros(6, 10, dtype=torch.bool)
    must[1, :8] = True
    for count in (8, 10, 30):
        kept, _ = ours(x, count, must)
        assert len(kept) == count and {(1, i) for i in range(8)} <= set(kept)


def test_a_session_keeps_what_the_loops_keep():
    model, given = random_video_model(), inputs([(3, 9)])
    features = model.model.get_video_features(given["pixel_values_videos"]).pooler_output[0, :144]
    with laconic.compress(model, VidCom2(keep=0.25)) as session, torch.no_grad():
        model(**given)
    expected = [3 + 16 * t + i for t, i in slow(features.view(9, 16, -1), 36)[0]]
    stream = session.trace.events[0].stream[0].tolist()
    assert [at for at in stream if 3 <= at < 147] == expected and stream[-10:] == list(range(147, 157))


def test_channels_are_those_of_one_video():
    """5: beside another video in the row, and in a padded batch."""
    case = CASES["qwen2_5_vl"]
    model, videos = case.build(blind=True), [ZooImage(list(numbers(i, 3, 6, 8)), video=True) for i in range(2)]

    def kept(rows, row=0):
        given = case.inputs(rows)
        with laconic.compress(model, VidCom2(keep=0.5)) as session, torch.no_grad():
            model(**given)
        return kept_cells(case, rows[row], given, session, row)

    alone = [kept([[one]])[0] for one in videos]
    assert kept([videos]) == alone
    assert kept([[videos[1]], videos], 1) == alone


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"channels": 0.0}, {"frames": "x"}, {"positions": "x"}])
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        VidCom2(**wrong)

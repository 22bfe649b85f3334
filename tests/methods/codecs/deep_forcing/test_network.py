"""Rollouts of the small generator: equal until the window is full, constant memory after, one selection per frame."""

import pytest
import torch

from laconic.methods.codecs.deep_forcing.network import FilmNet, Sizes
from laconic.methods.codecs.deep_forcing.window import Policy, Window

SIZES = Sizes(size=8, patch=4, width=32, depth=2, heads=2)
TOY = Policy(window=8, sink=4, budget=6, recent=1)
EVERYTHING = Policy(window=10_000, sink=4, budget=6, recent=1)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return FilmNet(SIZES).eval()


def noise(frames, batch=1):
    return torch.randn(batch, frames, 4, 48, generator=torch.Generator().manual_seed(0))


def test_1_frames_are_those_of_the_plain_model_bit_for_bit_until_the_window_is_full(net):
    plain, ours = net.roll(noise(10), EVERYTHING)[0], net.roll(noise(10), TOY)[0]
    assert plain.shape == (1, 10, 3, 8, 8)
    assert torch.equal(plain[:, :8], ours[:, :8]) and not torch.equal(plain[:, 8:], ours[:, 8:])


def test_7_memory_is_constant_over_a_hundred_frames(net, monkeypatch):
    sizes, finish = [], Window.finish

    def noted(window, *args):
        finish(window, *args)
        sizes.append(window.bytes)

    monkeypatch.setattr(Window, "finish", noted)
    net.roll(noise(100), TOY, steps=1)
    by_frame = [sum(sizes[2 * f : 2 * f + 2]) for f in range(100)]
    one = by_frame[0] * 2 / 3  # keys and values of a frame; the queries of one frame are held beside them
    assert max(by_frame) <= one * 8 + one / 2 and by_frame[8:97:3] == [by_frame[8]] * 30


def test_9_tokens_are_chosen_once_per_frame_and_not_per_step(net, monkeypatch):
    begun, begin = [], Window.begin
    monkeypatch.setattr(Window, "begin", lambda window, *args: begun.append(args[2]) or begin(window, *args))
    _, windows = net.roll(noise(20), TOY, steps=4)
    assert begun == [frame for frame in range(20) for _ in range(2)]
    assert [window.selections for window in windows] == [4, 4]  # frames 8, 11, 14 and 17


def test_6_frames_do_not_depend_on_the_clock(net):
    early, late = (net.roll(noise(14), TOY, first=first)[0] for first in (0, 500))
    torch.testing.assert_close(early, late, atol=5e-3, rtol=0)


def test_layers_choose_on_their_own(net):
    _, windows = net.roll(noise(30), TOY)
    assert not torch.equal(windows[0].frames, windows[1].frames)


def test_a_frame_sees_those_before_it_and_none_after(net):
    given = noise(6)
    other = given.clone()
    other[:, 3] += 1
    same = (net.roll(given, TOY)[0] == net.roll(other, TOY)[0]).flatten(2).all(-1)[0].tolist()
    assert same == [True, True, True, False, False, False]


def test_patches_and_frames_are_inverse(net):
    frames = torch.randn(2, 5, 3, 8, 8)
    assert net.patches(frames).shape == (2, 5, 4, 48) and torch.equal(net.frames(net.patches(frames)), frames)
    assert SIZES.channels == (8, 4, 4)

"""Rotary positions in three directions, and keys that are moved in time."""

import math

import pytest
import torch

from laconic.methods.codecs.deep_forcing.rotary import Channels, moved, placed

CHANNELS = Channels(8, 4, 4)


def slow(x, frame, line, column):
    """One vector, pair by pair."""
    out, i = [], 0
    for place, count in zip((frame, line, column), CHANNELS, strict=True):
        for pair in range(count // 2):
            angle = place * 10_000 ** (-2 * pair / count)
            a, b = float(x[i]), float(x[i + 1])
            out += [a * math.cos(angle) - b * math.sin(angle), a * math.sin(angle) + b * math.cos(angle)]
            i += 2
    return out


def test_places_are_those_of_a_loop():
    x, frames = torch.randn(2, 3, 8, 16), torch.tensor([5] * 4 + [6] * 4)
    found = placed(x, frames, 2, CHANNELS)
    for n in range(8):
        wanted = slow(x[1, 2, n], int(frames[n]), n % 4 // 2, n % 2)
        assert found[1, 2, n].tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("by", [3, -7, 250])
def test_2_a_moved_key_is_the_raw_one_at_the_later_time(by):
    raw, frames = torch.randn(1, 2, 8, 16), torch.tensor([5] * 4 + [6] * 4)
    stored, delta = placed(raw, frames, 2, CHANNELS), torch.full((8,), by)
    shifted = moved(stored, delta, CHANNELS)
    torch.testing.assert_close(shifted, placed(raw, frames + by, 2, CHANNELS), atol=1e-5, rtol=0)
    assert torch.equal(shifted[..., 8:], stored[..., 8:]) and not torch.equal(shifted[..., :8], stored[..., :8])
    torch.testing.assert_close(moved(shifted, -delta, CHANNELS), stored, atol=1e-5, rtol=0)


def test_each_token_has_its_own_delta():
    raw, frames = torch.randn(1, 1, 4, 16), torch.tensor([0, 1, 2, 3])
    found = moved(placed(raw, frames, 1, CHANNELS), torch.tensor([9, 0, -1, 4]), CHANNELS)
    torch.testing.assert_close(found, placed(raw, torch.tensor([9, 1, 1, 7]), 1, CHANNELS), atol=1e-5, rtol=0)

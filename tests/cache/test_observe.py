"""What methods see: attention windows, accumulated attention, queries before RoPE."""

import pytest
import torch
from helpers.reference import left_padding, observe, rope, slow_logits, slow_rotate

from laconic.cache.observe import rotate


def full_matrix(obs):
    """Causal attention of every new query, [B, H, T, n]; padding hidden."""
    n, t = obs.keys.shape[2], obs.new
    return slow_logits(obs.queries, obs.keys, obs.scale, obs.bias, None, past=n - t).softmax(-1)


@pytest.mark.parametrize("pads", [None, (5, 0)])
@pytest.mark.parametrize("w", [1, 4, 50])
def test_window_is_the_last_rows_of_the_full_matrix(pads, w):
    obs = observe(n=17, t=9, valid=None if pads is None else left_padding(17, *pads))
    rows = obs.window(w)
    w = min(w, 9)
    assert rows.shape == (2, 2, 2, w, 17)
    want = full_matrix(obs)[:, :, -w:]
    torch.testing.assert_close(rows.flatten(1, 2).double(), want, atol=1e-5, rtol=1e-5)
    assert obs.window(w) is rows  # computed once, handed to all


def test_padding_has_no_row_in_a_window_that_is_longer_than_its_sequence():
    obs = observe(n=17, t=9, valid=left_padding(17, 12, 0))
    rows = obs.window(9)
    assert not rows[0, :, :, :4].any()  # the pass begins with token 8, the first row's sequence with token 12
    assert torch.allclose(rows[0, :, :, 4:].sum(-1), torch.ones(())) and torch.allclose(rows[1].sum(-1), torch.ones(()))


def test_last_is_the_window_of_one():
    obs = observe()
    torch.testing.assert_close(obs.last().flatten(1, 2).double(), full_matrix(obs)[:, :, -1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pads", [(0, 0), (5, 0)])
def test_mass_is_the_column_sum_over_real_queries(pads):
    valid = left_padding(17, *pads)
    obs = observe(valid=valid if any(pads) else None)
    want = torch.zeros(2, 2, 17, dtype=torch.float64)
    matrix = full_matrix(obs)
    for b in range(2):
        for h in range(4):
            for i in range(17):
                if valid[b, i]:
                    want[b, h // 2] += matrix[b, h, i] / 2
    torch.testing.assert_close(obs.mass().double(), want, atol=1e-5, rtol=1e-5)
    assert not obs.mass()[0, :, : pads[0]].any()


def test_mass_goes_on_over_passes():
    whole = observe(n=17)
    first = observe(n=17)
    first.queries, first.keys, first.index = whole.queries[:, :, :10], whole.keys[:, :, :10], whole.index[..., :10]
    second = observe(n=17, t=7, columns={"mass": first.mass()})
    second.queries, second.keys = whole.queries[:, :, 10:], whole.keys
    torch.testing.assert_close(second.mass(), whole.mass(), atol=1e-5, rtol=1e-5)


def test_plain_queries_undo_the_rotation():
    obs = observe(n=9, d=8)
    plain = obs.plain_queries()
    for b in range(2):
        for h in range(4):
            for i in range(9):
                again = slow_rotate(plain[b, h, i], i)
                torch.testing.assert_close(again, obs.queries[b, h, i], atol=1e-4, rtol=1e-4)


def test_plain_queries_undo_the_scale_of_yarn():
    obs = observe(n=9, d=8)
    plain = obs.plain_queries()
    scaled = observe(n=9, d=8)
    scaled.queries = obs.queries * 1.3
    scaled.rotary = lambda p: tuple(1.3 * x for x in rope(p, 8))
    torch.testing.assert_close(scaled.plain_queries(), plain, atol=1e-4, rtol=1e-4)


def test_rotate_leaves_the_channels_behind_the_rotation_alone():
    x = torch.randn(2, 3, 5, 12)
    cos, sin = rope(torch.arange(5), 8)
    out = rotate(x, cos, sin)
    assert torch.equal(out[..., 8:], x[..., 8:])
    for i in range(5):
        torch.testing.assert_close(out[1, 2, i, :8], slow_rotate(x[1, 2, i, :8], i), atol=1e-5, rtol=1e-5)


def test_group_and_new():
    obs = observe(h=6, hkv=2, n=17, t=5)
    assert obs.group == 3 and obs.new == 5

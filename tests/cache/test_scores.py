"""Pooling and the window score of SnapKV and PyramidKV against loops."""

import pytest
import torch
from helpers.reference import left_padding, observe
from helpers.slow_scores import slow_pool, slow_window_scores

from laconic.cache.scores import check_window, pool, window_scores


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_pool(pooling, kernel):
    x = torch.rand(2, 3, 11)
    got = pool(x, kernel, pooling)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(got[i, j], torch.tensor(slow_pool(x[i, j].tolist(), kernel, pooling)))


def test_unknown_pooling():
    with pytest.raises(ValueError, match="choose 'avg' or 'max'"):
        pool(torch.zeros(1, 3), 3, "median")


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize(("window", "kernel"), [(1, 1), (4, 5), (17, 3), (64, 5)])
@pytest.mark.parametrize("t", [17, 6])
@pytest.mark.parametrize("heads", [(4, 2), (6, 1), (2, 2)])
def test_window_scores(window, kernel, pooling, t, heads):
    seen = observe(h=heads[0], hkv=heads[1], n=17, t=t)
    want = slow_window_scores(seen, window, kernel, pooling)
    torch.testing.assert_close(window_scores(seen, window, kernel, pooling), want, atol=1e-6, rtol=1e-5)


def test_padding_gets_nothing_before_pooling():
    seen = observe(n=17, valid=left_padding(17, 6, 0))
    got = window_scores(seen, 4, 5, "avg")
    torch.testing.assert_close(got, slow_window_scores(seen, 4, 5, "avg"), atol=1e-6, rtol=1e-5)
    assert not got[0, :, :4].any()


@pytest.mark.parametrize(("window", "kernel"), [(0, 5), (8, 4), (8, 0), (-1, 5), (2.5, 5), (8, "7")])
def test_senseless_windows_and_kernels_are_refused(window, kernel):
    with pytest.raises(ValueError, match="must be"):
        check_window("x", window, kernel)

"""Pooling of rows in raster order."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laconic.ops.pool import pool_positions, pool_rows


@given(st.integers(0, 40), st.integers(1, 9))
def test_rows_equal_avg_pool1d_which_drops_the_tail(n, stride):
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(n))
    if n < stride:
        assert pool_rows(x, stride).shape == (0, 5)
        return
    want = torch.nn.functional.avg_pool1d(x.T[None], stride, stride)[0].T
    torch.testing.assert_close(pool_rows(x, stride), want)


def test_positions_are_rounded_down_in_whole_numbers():
    assert pool_positions(torch.arange(35, 35 + 17), 8).tolist() == [38, 46]
    large = torch.arange(2**40, 2**40 + 4)  # no float in between
    assert pool_positions(large, 4).tolist() == [2**40 + 1]


def test_the_type_stays_and_the_mean_is_exact():
    x = torch.full((8, 2), 1.0, dtype=torch.bfloat16)
    x[0] = 512  # a running sum in bfloat16 would lose the ones
    assert pool_rows(x, 8).dtype == torch.bfloat16 and float(pool_rows(x, 8)[0, 0]) == float(
        torch.tensor(519 / 8).bfloat16()
    )


def test_bad_stride():
    with pytest.raises(ValueError, match="stride=0"):
        pool_rows(torch.zeros(3, 2), 0)

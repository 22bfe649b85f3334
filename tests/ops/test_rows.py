"""Rows that a mask names."""

import torch

from laconic.ops.rows import gathered, scattered


def test_rows_come_back_to_where_they_were():
    x = torch.randn(3, 5, 2)
    where = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]]).bool()
    packed = gathered(x, where)
    assert packed.shape == (3, 5, 2)
    for b in range(3):
        rows = x[b, where[b]]
        assert torch.equal(packed[b, : len(rows)], rows) and not packed[b, len(rows) :].any()
    assert torch.equal(scattered(x, where, packed), x)
    doubled = scattered(x, where, 2 * packed)
    assert torch.equal(doubled, torch.where(where[..., None], 2 * x, x))

"""Phases in both layouts: one set, and one set for each axis, against the published formula."""

from types import SimpleNamespace

import torch

from laconic.stream.phases import as_used, rows_of

STACK = SimpleNamespace(config=SimpleNamespace(rope_parameters={"mrope_section": [1, 2, 1]}))


def test_rows_of_either_layout():
    rows = torch.tensor([[4, 0], [1, 2]])
    one, three = torch.randn(2, 5, 8), torch.randn(3, 2, 5, 8)
    assert torch.equal(rows_of(one, rows), torch.stack([one[b, rows[b]] for b in range(2)]))
    assert torch.equal(rows_of(three, rows), torch.stack([torch.stack([x[b, rows[b]] for b in range(2)]) for x in three]))


def test_channels_come_from_the_axis_of_their_section():
    three = torch.randn(3, 2, 5, 8)
    axes = [0, 1, 1, 2] * 2
    by_hand = torch.stack([three[axis, ..., channel] for channel, axis in enumerate(axes)], -1)
    assert torch.equal(as_used(three, STACK), by_hand)
    assert torch.equal(as_used(three[0], STACK), three[0])

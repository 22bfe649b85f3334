"""Optimizers of the testbed's trainings."""

import torch

from laconic.testbed.optimizers import build_optimizers


def test_groups_remember_their_rate():
    matrix, other = torch.nn.Parameter(torch.ones(3, 4)), torch.nn.Parameter(torch.ones(4))
    optimizers = build_optimizers([matrix], [other], 0.02, 0.01)
    assert [optimizer.param_groups[0]["base_lr"] for optimizer in optimizers] == [0.02, 0.01]
    assert [type(optimizer).__name__ for optimizer in optimizers] == ["Muon", "AdamW"]

"""Optimizers of the testbed's trainings."""

import torch
from torch import nn

from laconic.testbed.optimizers import build_optimizers, orthogonal


def test_groups_remember_their_rate():
    matrix, other = torch.nn.Parameter(torch.ones(3, 4)), torch.nn.Parameter(torch.ones(4))
    optimizers = build_optimizers([matrix], [other], 0.02, 0.01)
    assert [optimizer.param_groups[0]["base_lr"] for optimizer in optimizers] == [0.02, 0.01]
    assert [type(optimizer).__name__ for optimizer in optimizers] == ["Muon", "AdamW"]


def test_exact_muon_moves_as_torchs_does_up_to_bfloat16():
    torch.manual_seed(0)
    start = [torch.randn(24, 16), torch.randn(24, 16), torch.randn(8, 8)]
    ours, theirs = ([nn.Parameter(x.clone()) for x in start] for _ in range(2))
    kept = nn.Parameter(torch.zeros(2))
    optimizers = [build_optimizers(m, [kept], 0.02, 1e-3, exact=exact)[0] for m, exact in ((ours, True), (theirs, False))]
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for a, b, x in zip(ours, theirs, start, strict=True):
        assert (a - b).norm() < 0.15 * (b - x).norm() and (b - x).abs().max() > 0.01


def test_singular_values_come_near_one():
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(5, 12, 30)))
    assert values.min() > 0.5 and values.max() < 1.3

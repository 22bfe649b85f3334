"""Largest attention over heads, summed over groups of queries."""

import torch

from laconic.ops import peaks
from laconic.ops.peaks import peak_mass


def test_sums_equal_a_slow_loop(monkeypatch):
    monkeypatch.setattr(peaks, "_SCORES", 1)  # blocks of 16 queries
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 4, 37, 8, generator=g), torch.randn(2, 2, 41, 8, generator=g)
    bias = torch.zeros(2, 2, 41)
    bias[1, :, :6] = float("-inf")  # the second row's first queries see nothing
    groups = torch.rand(2, 3, 37, generator=g) > 0.6
    groups[1, :, :6] = False
    got = peak_mass(q, k, 0.3, groups, bias=bias)
    for b in range(2):
        want = torch.zeros(3, 41, dtype=torch.float64)
        for i in range(37):
            if not groups[b, :, i].any():
                continue
            rows = []
            for h in range(4):
                logits = torch.tensor([float(q[b, h, i] @ k[b, h // 2, j]) * 0.3 for j in range(41)])
                logits = logits + bias[b, 0]
                logits[5 + i :] = float("-inf")
                rows.append(logits.softmax(-1))
            want += groups[b, :, i, None] * torch.stack(rows).amax(0).double()
        torch.testing.assert_close(got[b], want, rtol=1e-4, atol=1e-6)

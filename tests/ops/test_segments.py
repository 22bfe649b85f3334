"""Attention of pseudo tokens over parts of a prompt, against a mask."""

import pytest
import torch

from laconic.ops.segments import Segment, attend_segments

T, P, D = 11, 9, 8
ROWS = [
    [Segment((0, 5), ((0, 2), (3, 6))), Segment((5, 9), ((4, 11),), ((0, 1), (3, 5)))],
    [Segment((0, 9), ((3, 11),))],
]


def visible(row, start):
    """bool [T + P, T + P]: who sees whom, one query at a time."""
    seen = torch.zeros(T + P, T + P, dtype=torch.bool)
    for i in range(start, T):
        seen[i, start : i + 1] = True
    for segment in row:
        for i in range(*segment.own):
            for a, b in segment.prompt:
                seen[T + i, a:b] = True
            for a, b in segment.pseudo:
                seen[T + i, T + a : T + b] = True
            seen[T + i, T + segment.own[0] : T + i + 1] = True
    return seen


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_it_is_attention_under_a_mask(softcap):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, T + P, D, generator=generator) for heads in (4, 2, 2))
    starts = [0, 3]
    out, lse = attend_segments(q, k, v, 0.5, T, starts, ROWS, softcap)
    for b in range(2):
        seen = visible(ROWS[b], starts[b])
        for h in range(4):
            logits = q[b, h] @ k[b, h // 2].T * 0.5
            if softcap is not None:
                logits = softcap * torch.tanh(logits / softcap)
            logits = logits.masked_fill(~seen, float("-inf"))[starts[b] :]
            torch.testing.assert_close(lse[b, h, starts[b] :], logits.logsumexp(-1))
            torch.testing.assert_close(out[b, h, starts[b] :], logits.softmax(-1) @ v[b, h // 2])


def test_pairs_are_counted():
    for row in ROWS:
        for segment in row:
            assert segment.pairs == int(visible([segment], T).sum())

"""Attention with log-sum-exp against the dense softmax, written with loops straight from the equation."""

import math
from itertools import pairwise

import pytest
import torch
from helpers.reference import slow_attend, slow_logits
from hypothesis import given
from hypothesis import strategies as st

from laconic.ops import attend as module
from laconic.ops.attend import attend, attend_alone, attend_padded, attention_mass, attention_rows, merge


def tensors(b=2, h=4, hkv=2, t=5, n=9, d=8, dv=8, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shapes = (b, h, t, d), (b, hkv, n, d), (b, hkv, n, dv)
    return [(torch.randn(s, generator=generator) * 1.5).to(dtype) for s in shapes]


def hide(b, hkv, n, seed=0):
    """A bias that adds something to every key and hides a third of them."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.rand(b, hkv, n, generator=generator) < 0.3
    return torch.randn(b, hkv, n, generator=generator).masked_fill(hidden, -math.inf)


def close(got, want, tolerance=1e-5):
    assert got[0].shape == want[0].shape
    torch.testing.assert_close(got[0].double(), want[0], atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(got[1].double(), want[1], atol=tolerance, rtol=tolerance)
    assert got[1].dtype == torch.float32


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("t", [1, 5])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("causal", [False, True])
def test_attend_equals_dense_softmax(heads, t, bias, softcap, causal):
    h, hkv = heads
    n = t if causal else 9
    q, k, v = tensors(h=h, hkv=hkv, t=t, n=n)
    added = hide(2, hkv, n) if bias else None
    got = attend(q, k, v, 0.3, causal=causal, bias=added, softcap=softcap)
    close(got, slow_attend(q, k, v, 0.3, added, softcap, causal))
    assert got[0].dtype == q.dtype


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_attend_bf16(causal, bias):
    q, k, v = tensors(t=7, n=7, dtype=torch.bfloat16)
    added = hide(2, 2, 7) if bias else None
    got = attend(q, k, v, 0.3, causal=causal, bias=added)
    assert got[0].dtype == torch.bfloat16
    close(got, slow_attend(q, k, v, 0.3, added, None, causal), tolerance=3e-2)


@pytest.mark.parametrize("bias", [False, True])
def test_a_single_bf16_row_per_head(bias):
    """It runs as two rows, for which torch's kernel is faster."""
    q, k, v = tensors(h=2, hkv=2, t=1, dtype=torch.bfloat16)
    added = hide(2, 2, 9) if bias else None
    want = slow_attend(q, k, v, 0.3, added)
    close(attend(q, k, v, 0.3, bias=added), want, tolerance=3e-2)
    if not bias:
        alone = attend_alone(q, k, v, 0.3)
        assert alone.shape == q.shape
        torch.testing.assert_close(alone.double(), want[0], atol=3e-2, rtol=3e-2)


def test_values_may_be_wider_than_keys():
    q, k, v = tensors(dv=12)
    close(module._blocked(q, k, v, 0.3, False, None, None), slow_attend(q, k, v, 0.3))


def test_blocks_of_query_rows_change_nothing(monkeypatch):
    q, k, v = tensors(t=11, n=11)
    monkeypatch.setattr(module, "_BLOCK", 4)
    close(attend(q, k, v, 0.3, causal=True, softcap=5.0), slow_attend(q, k, v, 0.3, None, 5.0, True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_blind_queries_give_zeros_and_minus_infinity(dtype, softcap):
    q, k, v = tensors(dtype=dtype)
    bias = torch.zeros(2, 2, 9)
    bias[1, 0] = -math.inf
    out, lse = attend(q, k, v, 0.3, bias=bias, softcap=softcap)
    assert torch.equal(out[1, :2], torch.zeros_like(out[1, :2]))
    assert bool(lse[1, :2].isneginf().all())
    assert bool(lse[0].isfinite().all()) and bool(lse[1, 2:].isfinite().all())
    assert bool(out.isfinite().all())


def test_padding_queries_of_a_causal_block_are_blind():
    q, k, v = tensors(t=6, n=6)
    bias = torch.zeros(2, 1, 6)
    bias[0, :, :3] = -math.inf
    out, lse = attend(q, k, v, 0.3, causal=True, bias=bias)
    assert torch.equal(out[0, :, :3], torch.zeros_like(out[0, :, :3]))
    assert bool(lse[0, :, :3].isneginf().all())
    close((out, lse), slow_attend(q, k, v, 0.3, bias.expand(2, 2, 6), None, True))


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("starts", [[3, 0], [6, 1], [5, 6]])
def test_left_padded_rows_attend_without_their_padding(starts, softcap):
    q, k, v = tensors(t=6, n=6)
    bias = torch.zeros(2, 2, 6)
    for row, start in enumerate(starts):
        bias[row, :, :start] = -math.inf
    got = attend_padded(q, k, v, 0.3, starts, softcap)
    close(got, slow_attend(q, k, v, 0.3, bias, softcap, True))
    assert bool(got[1][0, :, : starts[0]].isneginf().all()) and not got[0][0, :, : starts[0]].any()


@given(cuts=st.lists(st.integers(1, 12), max_size=4), seed=st.integers(0, 99), bias=st.booleans())
def test_merging_any_split_gives_the_whole(cuts, seed, bias):
    q, k, v = tensors(t=3, n=13, seed=seed)
    added = hide(2, 2, 13, seed) if bias else torch.zeros(2, 2, 13)
    edges = sorted({0, 13, *cuts})
    parts = [attend(q, k[:, :, a:b], v[:, :, a:b], 0.3, bias=added[:, :, a:b]) for a, b in pairwise(edges)]
    close(merge(parts), slow_attend(q, k, v, 0.3, added))


def test_merging_blind_parts_is_blind():
    nothing = torch.zeros(1, 2, 3, 4), torch.full((1, 2, 3), -math.inf)
    out, lse = merge([nothing, nothing])
    assert torch.equal(out, nothing[0]) and bool(lse.isneginf().all())


def test_merging_with_a_blind_part_gives_the_other():
    q, k, v = tensors()
    whole = attend(q, k, v, 0.3)
    out, lse = merge([(torch.zeros_like(whole[0]), torch.full_like(whole[1], -math.inf)), whole])
    torch.testing.assert_close(out, whole[0])
    torch.testing.assert_close(lse, whole[1])


@pytest.mark.parametrize("w", [1, 4])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_attention_rows_are_the_last_rows_of_the_causal_softmax(w, bias, softcap):
    q, k, _ = tensors(t=w, n=9)
    added = hide(2, 2, 9).clone() if bias else None
    if added is not None:
        added[..., 0] = 0.0  # every row sees something
    want = slow_logits(q, k, 0.3, added, softcap, past=9 - w).softmax(-1)
    got = attention_rows(q, k, 0.3, bias=added, softcap=softcap)
    assert got.shape == (2, 2, 2, w, 9) and got.dtype == torch.float32
    torch.testing.assert_close(got.flatten(1, 2).double(), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("block", [3, 512])
@pytest.mark.parametrize("past", [0, 4])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_mass_is_the_column_sum_of_the_full_causal_matrix(monkeypatch, block, past, padded):
    monkeypatch.setattr(module, "_BLOCK", block)
    t, n = 7, 7 + past
    q, k, _ = tensors(t=t, n=n)
    bias, real = None, None
    if padded:  # the first two new positions of row 0 are padding: neither seen nor seeing
        real = torch.ones(2, t, dtype=torch.bool)
        real[0, :2] = False
        bias = torch.zeros(2, 2, n)
        bias[0, :, past : past + 2] = -math.inf
    want = torch.zeros(2, 2, n, dtype=torch.float64)
    logits = slow_logits(q, k, 0.3, bias, None, past)
    for b in range(2):
        for h in range(4):
            for i in range(t):
                if real is None or real[b, i]:
                    want[b, h // 2] += logits[b, h, i].softmax(-1) / 2
    got = attention_mass(q, k, 0.3, bias=bias, real=real)
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-5)
    queries = torch.full((2,), t) if real is None else real.sum(-1)
    torch.testing.assert_close(got.sum(-1), queries[:, None].float().expand(2, 2))


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_no_keys_at_all_is_blind(softcap):
    q, k, v = tensors(n=0)
    out, lse = attend(q, k, v, 0.3, softcap=softcap)
    assert torch.equal(out, torch.zeros_like(q)) and bool(lse.isneginf().all())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("t", [1, 7])
@pytest.mark.parametrize("alone", [attend_alone, module._sdpa], ids=["here", "sdpa"])
def test_attention_that_needs_no_merging(alone, t, causal):
    q, k, v = tensors(h=6, hkv=2, t=t, n=t if causal else 9)
    want = attend(q, k, v, 0.3, causal=causal)[0]
    torch.testing.assert_close(alone(q, k, v, 0.3, causal=causal), want, atol=1e-5, rtol=1e-5)

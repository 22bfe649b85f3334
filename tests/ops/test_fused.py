"""Attention over packed and ragged entries: the compiled loops and the torch paths against the dense softmax in fp64."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product

import pytest
import torch

from laconic.ops import compiled, fused, fused_loops
from laconic.ops.fused import attend_quantised, attend_ragged
from laconic.ops.quantise import quantise_keys, quantise_values


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def dense(q, k, v, scale, bias=None, extra=None, softcap=None):
    """Softmax in fp64 -> output [B, H, T, Dv], lse [B, H, T], logits [B, Hkv, G * T, n]."""
    (b, h, t, d), hkv = q.shape, k.shape[1]
    logits = q.double().reshape(b, hkv, -1, d) @ k.double().transpose(-1, -2) * scale
    logits = logits if extra is None else logits + extra.double()
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    logits = logits if bias is None else logits + bias.double()[:, :, None]
    lse = logits.logsumexp(-1)
    weights = torch.exp(logits - lse.masked_fill(lse.isneginf(), 0)[..., None])
    return (weights @ v.double()).view(b, h, t, -1), lse.view(b, h, t), logits


def close(got, want, tolerance=1e-5):
    for a, b in zip(got, want, strict=False):
        assert a.shape == b.shape
        torch.testing.assert_close(a.double(), b, atol=tolerance, rtol=tolerance)
    assert got[1].dtype == torch.float32


def packed(bits=4, d=8, n=300, group=8, tile=8, value_bits=None, b=2, hkv=2):
    k, v = normal(b, hkv, n, d, seed=1) * 1.5 + 1, normal(b, hkv, n, d, seed=2) + 0.5
    return quantise_keys(k, bits, group, tile=tile), quantise_values(v, value_bits or bits, group, tile=tile)


def hiding(n, b=2, hkv=2):
    """Adds something to every key, hides a third of them, and hides everything from row 1's first head."""
    bias = normal(b, hkv, n, seed=3).masked_fill(normal(b, hkv, n, seed=4) > 0.5, -math.inf)
    bias[1, 0] = -math.inf
    return bias


@pytest.fixture(params=["loops", "torch"])
def path(request, monkeypatch):
    """Both paths; the compiled one is divided among three threads."""
    if request.param == "torch":
        monkeypatch.setattr(compiled, "ROWS", 0)
        monkeypatch.setattr(fused, "_TILES", 5)
    else:
        monkeypatch.setattr(compiled.torch, "get_num_threads", lambda: 3)
        monkeypatch.setattr(compiled, "SHARE", 1)
        monkeypatch.setattr(fused, "_dequantised", None)  # calling it would fail
        monkeypatch.setattr(fused, "_head_by_head", None)
    return request.param


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("heads", [(1, 1), (4, 1), (3, 2), (8, 1)], ids=str)
def test_quantised_equals_softmax_over_what_is_stored(path, bits, heads):
    (g, t), (keys, values) = heads, packed(bits)
    q, bias = normal(2, 2 * g, t, 8), hiding(300)
    k, v = keys.dequantise(), values.dequantise()
    close(attend_quantised(q, keys, values, 0.4), dense(q, k, v, 0.4))
    out, lse = attend_quantised(q, keys, values, 0.4, bias=bias)
    close((out, lse), dense(q, k, v, 0.4, bias))
    assert not out[1, :g].any() and bool(lse[1, :g].isneginf().all())


@pytest.mark.slow
@pytest.mark.parametrize("layout", [{"d": 64, "group": 64, "tile": 32}, {"d": 128, "group": 64, "tile": 32}], ids=str)
def test_quantised_at_the_sizes_of_models(path, layout):
    keys, values = packed(**layout)
    q = normal(2, 8, 1, layout["d"]) * 0.3
    close(attend_quantised(q, keys, values, 0.3), dense(q, keys.dequantise(), values.dequantise(), 0.3))


@pytest.mark.parametrize("value_bits", [4, 2])
def test_one_group_per_block_and_one_over_all_heads(path, value_bits):
    """KCVT: blocks of different lengths, each with its own key range; appended buffers have spare room."""
    blocks = [packed(4, n=n, group=None, value_bits=value_bits) for n in (160, 16, 24)]
    (keys, values), q = blocks[0], normal(2, 4, 1, 8)
    for more_keys, more_values in blocks[1:]:
        keys.append(more_keys)
        values.append(more_values)
    close(attend_quantised(q, keys, values, 0.4), dense(q, keys.dequantise(), values.dequantise(), 0.4))


@pytest.mark.parametrize("t", [1, 2])
def test_extra_logits_go_in_and_final_logits_come_out(path, t):
    keys, values = packed()
    q, bias, extra, logits = normal(2, 6, t, 8), hiding(300), normal(2, 2, 3 * t, 300, seed=5), torch.empty(2, 2, 3 * t, 300)
    got = attend_quantised(q, keys, values, 0.4, bias=bias, extra=extra, logits=logits)
    want = dense(q, keys.dequantise(), values.dequantise(), 0.4, bias, extra)
    close((*got, logits), want)


@pytest.mark.parametrize("with_logits", [False, True])
def test_softcap(with_logits):
    keys, values = packed()
    q, logits = normal(2, 4, 1, 8) * 3, torch.empty(2, 2, 2, 300) if with_logits else None
    got = attend_quantised(q, keys, values, 0.4, bias=hiding(300), logits=logits, softcap=2.0)
    close(got, dense(q, keys.dequantise(), values.dequantise(), 0.4, hiding(300), softcap=2.0))


def test_bf16_queries_and_gradients():
    keys, values = packed()
    q = normal(2, 4, 1, 8, dtype=torch.bfloat16)
    out, _ = attend_quantised(q, keys, values, 0.4)
    assert out.dtype == torch.bfloat16
    want = dense(q, keys.dequantise(), values.dequantise(), 0.4)[0]
    torch.testing.assert_close(out.double(), want, atol=2e-2, rtol=2e-2)
    learned = normal(2, 4, 1, 8).requires_grad_()
    attend_quantised(learned, keys, values, 0.4)[0].sum().backward()
    assert learned.grad is not None and bool(learned.grad.any())


def test_keys_and_values_must_agree():
    keys, _ = packed(n=64)
    with pytest.raises(ValueError, match="64 tokens in tiles of 8, values: 72"):
        attend_quantised(normal(2, 4, 1, 8), keys, packed(n=72)[1], 0.4)


def test_what_is_not_stored_is_not_read():
    """The loops index without bounds checks, so layouts that do not fit and damaged owners are refused."""
    keys, values = packed(n=64)
    with pytest.raises(ValueError, match="of 2 rows, 2 KV heads of 8"):
        attend_quantised(normal(3, 4, 1, 8), keys, values, 0.4)
    with pytest.raises(ValueError, match="of 2 rows, 2 KV heads of 8"):
        attend_quantised(normal(2, 4, 1, 16), keys, values, 0.4)
    with pytest.raises(ValueError, match="some are not stored"):
        attend_quantised(normal(2, 4, 1, 8), replace(keys, length=65), replace(values, length=65), 0.4)
    for damaged in (-1, keys.buffers["step"].shape[2]):
        keys.buffers["owner"][1, 0, 3] = damaged
        with pytest.raises(IndexError, match="owner"):
            attend_quantised(normal(2, 4, 1, 8), keys, values, 0.4)
    flat, starts = normal(100, 8), torch.tensor([0, 50])
    attend_ragged(normal(1, 4, 1, 8), flat, flat, starts, torch.tensor([50, 50]), 0.5)
    for first, counts in ([0, 50], [50, 51]), ([-1, 50], [50, 50]):
        with pytest.raises(IndexError, match="owns rows"):
            attend_ragged(normal(1, 4, 1, 8), flat, flat, torch.tensor(first), torch.tensor(counts), 0.5)


def test_every_layout_is_compiled_into_files_of_its_own():
    """numba finds what it compiled by a function's name and the types of its arguments, which all layouts share."""
    layouts = [
        *(fused_loops.quantised(*x) for x in product((2, 4), (2, 4), (8, 16), (8, 16), (8, 16), (8,))),
        *(fused_loops.runs(*x) for x in product((8, 16), (8, 16), ("float32", "bfloat16"))),
    ]
    names = {kernel.py_func.__qualname__ for kernel in layouts}
    assert len(names) == len(layouts)


STARTS, COUNTS = torch.tensor([0, 50, 400, 410]), torch.tensor([37, 333, 0, 129])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [(1, 1), (4, 1), (3, 2), (8, 1)], ids=str)
@pytest.mark.parametrize("biased", [False, True])
def test_ragged_equals_softmax_over_each_heads_own_entries(path, dtype, heads, biased):
    g, t = heads
    value_dim = 16 if path == "loops" else 8  # torch's flash kernel needs equal sizes
    keys, values = normal(600, 8, seed=1, dtype=dtype), normal(600, value_dim, seed=2, dtype=dtype)
    q = normal(2, 2 * g, t, 8, dtype=dtype)
    bias = normal(600, seed=3).masked_fill(normal(600, seed=4) > 0.5, -math.inf) if biased else None
    out, lse = attend_ragged(q, keys, values, STARTS, COUNTS, 0.5, bias=bias)
    for i, (start, count) in enumerate(zip(STARTS.tolist(), COUNTS.tolist(), strict=True)):
        row, own = slice(i // 2, i // 2 + 1), slice(start, start + count)
        heads_of = slice(i % 2 * g, (i % 2 + 1) * g)
        added = None if bias is None else bias[None, None, own]
        want = dense(q[row, heads_of], keys[None, None, own], values[None, None, own], 0.5, added)
        got = out[row, heads_of], lse[row, heads_of]
        close(got, want, 1e-5 if dtype == torch.float32 else 2e-2)
        if count == 0:
            assert not got[0].any() and bool(got[1].isneginf().all())


def test_two_threads_decode_at_once(monkeypatch):
    """Each with three shares on the common pool."""
    monkeypatch.setattr(compiled.torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(compiled, "SHARE", 1)
    keys, values = packed(n=3000)
    flat = normal(3000, 8, seed=7)
    starts, counts = torch.tensor([0, 900, 1000, 2000]), torch.tensor([900, 90, 1000, 1000])
    queries = [normal(2, 4, 1, 8, seed=i) for i in range(40)]

    def both(q):
        packed_out = attend_quantised(q, keys, values, 0.4)
        return *packed_out, *attend_ragged(q, flat, flat, starts, counts, 0.4)

    want = [both(q) for q in queries]
    with ThreadPoolExecutor(2) as threads:
        for got, expected in zip(threads.map(both, queries), want, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))

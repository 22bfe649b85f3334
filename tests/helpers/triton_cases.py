"""The Triton kernels against the softmax in float64; run by `test_triton.py`, in Triton's interpreter or on a GPU."""

import math
import sys

import pytest
import torch

from helpers.reference import slow_attend
from laconic.ops.quantise import quantise_keys, quantise_values
from laconic.ops.triton_decode import attend_dense, attend_quantised, attend_ragged, available

LOADED = "laconic.ops.triton_kernels" in sys.modules
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
pytestmark = pytest.mark.skipif(not available(torch.zeros(1, device=DEVICE)), reason="needs TRITON_INTERPRET=1 or a GPU")


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def hide(*shape, seed=0):
    """A bias that adds something to every key and hides a third of them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).masked_fill(torch.rand(*shape, generator=generator) < 0.3, -math.inf)


def on(*tensors):
    return [None if x is None else x.to(DEVICE) for x in tensors]


def close(got, want):
    out, lse = (x.cpu() for x in got)
    tolerance = TOLERANCE[out.dtype]
    assert out.shape == want[0].shape and lse.dtype == torch.float32
    torch.testing.assert_close(out.double(), want[0].double(), atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(lse.double(), want[1].double(), atol=max(tolerance, 1e-5), rtol=1e-5)


def test_the_kernels_are_not_imported_with_the_package():
    assert not LOADED
    attend_dense(*on(random(1, 1, 1, 16), random(1, 1, 1, 16), random(1, 1, 1, 16)), 0.2)
    assert "laconic.ops.triton_kernels" in sys.modules


@pytest.mark.parametrize("group", [1, 3, 4, 8])
@pytest.mark.parametrize("d", [64, 80, 128])
def test_dense(group, d):
    """n of no whole tile, and more than one chunk; the second chunk is short."""
    q, k, v = random(1, 2 * group, 1, d), random(1, 2, 150, d, seed=1), random(1, 2, 150, d, seed=2)
    close(attend_dense(*on(q, k, v), 0.2, chunk=128), slow_attend(q, k, v, 0.2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dense_in_half_precision(dtype):
    q, k, v = (
        random(2, 4, 1, 64, dtype=dtype),
        random(2, 2, 70, 64, seed=1, dtype=dtype),
        random(2, 2, 70, 64, seed=2, dtype=dtype),
    )
    got = attend_dense(*on(q, k, v), 0.2, chunk=16)
    assert got[0].dtype == dtype
    close(got, slow_attend(q, k, v, 0.2))


@pytest.mark.parametrize("n", [1, 5, 127, 128, 129])
@pytest.mark.parametrize("chunk", [1, None])
def test_dense_of_any_length(n, chunk):
    q, k, v = random(1, 2, 1, 16), random(1, 1, n, 16, seed=1), random(1, 1, n, 16, seed=2)
    close(attend_dense(*on(q, k, v), 0.2, chunk=chunk), slow_attend(q, k, v, 0.2))


def test_no_entries_at_all_are_blind():
    out, lse = attend_dense(*on(random(2, 4, 1, 16), random(2, 2, 0, 16), random(2, 2, 0, 16)), 0.2)
    assert not out.any() and bool(lse.isneginf().all()) and out.shape == (2, 4, 1, 16)


@pytest.mark.parametrize(("softcap", "chunk"), [(None, 16), (3.0, None)])
def test_bias_and_blind_heads(softcap, chunk):
    """A hidden chunk, and a head that sees nothing."""
    q, k, v, bias = random(2, 4, 1, 128), random(2, 2, 100, 128, seed=1), random(2, 2, 100, 128, seed=2), hide(2, 2, 100)
    bias[0, 0, :40], bias[1, 1] = -math.inf, -math.inf
    got = attend_dense(*on(q, k, v), 0.2, bias=on(bias)[0], softcap=softcap, chunk=chunk)
    close(got, slow_attend(q, k, v, 0.2, bias, softcap))
    assert not got[0][1, 2:].any() and bool(got[1][1, 2:].isneginf().all())


def test_a_bias_may_be_shared_by_heads():
    q, k, v, bias = random(2, 4, 1, 16), random(2, 2, 30, 16, seed=1), random(2, 2, 30, 16, seed=2), hide(2, 1, 30)
    close(attend_dense(*on(q, k, v), 0.2, bias=on(bias)[0]), slow_attend(q, k, v, 0.2, bias.expand(2, 2, 30)))


def test_strides_are_respected():
    """Entries after the stored ones are poison, heads follow tokens in memory, queries are [B, T, H, D]; values are
    wider."""
    q, k, v = random(2, 3, 4, 16), random(2, 40, 2, 16, seed=1), random(2, 2, 40, 32, seed=2)
    k[:, 33:], v[:, :, 33:] = math.nan, math.nan
    q, k, v = q.transpose(1, 2), k.transpose(1, 2)[:, :, :33], v[:, :, :33]
    close(attend_dense(*on(q, k, v), 0.2), slow_attend(q, k, v, 0.2))


@pytest.mark.parametrize("t", [3, 40])
def test_several_query_tokens_are_rows(t):
    """40 tokens of 2 heads are two blocks of 64 rows."""
    q, k, v = random(1, 4, t, 16), random(1, 2, 50, 16, seed=1), random(1, 2, 50, 16, seed=2)
    close(attend_dense(*on(q, k, v), 0.2, chunk=128), slow_attend(q, k, v, 0.2))


@pytest.mark.parametrize(("chunk", "bias"), [(1, False), (None, True)])
@pytest.mark.parametrize(("group", "d"), [(1, 64), (3, 128), (4, 80)])
def test_ragged(chunk, bias, group, d):
    """Heads of no entry, less than a tile and several chunks; the spare room between them is poison."""
    counts, room = [0, 1, 150, 33], 5
    starts = [room, 2 * room, 3 * room + 1, 4 * room + 151]
    rows = sum(counts) + room * 5
    q, k, v = random(2, 2 * group, 1, d), random(rows, d, seed=1), random(rows, d, seed=2)
    added = hide(rows) if bias else None
    used = torch.zeros(rows, dtype=torch.bool)
    for start, count in zip(starts, counts, strict=True):
        used[start : start + count] = True
    k[~used], v[~used] = math.nan, math.nan
    where, lengths, longest = torch.tensor(starts), torch.tensor(counts), None
    if chunk is not None:
        where, lengths, longest = *on(where, lengths.int()), max(counts)
    got = attend_ragged(*on(q, k, v), where, lengths, 0.2, longest=longest, bias=on(added)[0], chunk=chunk)
    wanted = []
    for i, (start, count) in enumerate(zip(starts, counts, strict=True)):
        own = slice(start, start + count)
        heads = q[i // 2, i % 2 * group : (i % 2 + 1) * group][None]
        if count:
            wanted.append(
                slow_attend(
                    heads, k[None, None, own], v[None, None, own], 0.2, None if added is None else added[None, None, own]
                )
            )
        else:
            wanted.append(
                (torch.zeros(1, group, 1, d, dtype=torch.float64), torch.full((1, group, 1), -math.inf, dtype=torch.float64))
            )
    out, lse = (torch.cat(x, 1).view(2, 2 * group, 1, -1) for x in zip(*wanted, strict=True))
    close(got, (out, lse[..., 0]))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(
    ("group", "d", "key_group", "value_group", "tile"),
    [(4, 64, 64, 64, 32), (1, 128, 32, 64, 32), (8, 80, None, 16, 8), (3, 64, 64, 8, 16), (2, 80, 32, None, 32)],
)
def test_quantised(bits, group, d, key_group, value_group, tile):
    """The last tile is partly filler; several chunks; some entries are hidden."""
    n = 90
    q, k, v = random(1, 2 * group, 1, d), random(1, 2, n, d, seed=1), random(1, 2, n, d, seed=2)
    keys = quantise_keys(k.to(DEVICE), bits, key_group, tile=tile)
    values = quantise_values(v.to(DEVICE), bits, value_group, tile=tile)
    bias = hide(1, 2, n)
    got = attend_quantised(q.to(DEVICE), keys, values, 0.2, bias=bias.to(DEVICE), chunk=64)
    close(got, slow_attend(q, keys.dequantise().cpu(), values.dequantise().cpu(), 0.2, bias))


def test_quantised_after_appending():
    """Blocks keep their own groups, so a tile's group is no longer its number divided by a constant; two rows, spare
    room."""
    sizes = 32, 64, 50
    blocks = [[random(2, 2, n, 64, seed=n + i).to(DEVICE) for n in sizes] for i in (1, 2)]
    keys, values = quantise_keys(blocks[0][0], 4), quantise_values(blocks[1][0], 2)
    for k, v in zip(blocks[0][1:], blocks[1][1:], strict=True):
        keys.append(quantise_keys(k, 4))
        values.append(quantise_values(v, 2))
    q = random(2, 4, 2, 64)
    got = attend_quantised(q.to(DEVICE), keys, values, 0.2, softcap=5.0)
    close(got, slow_attend(q, keys.dequantise().cpu(), values.dequantise().cpu(), 0.2, None, 5.0))


def test_quantised_in_half_precision():
    keys, values = (f(random(1, 1, 64, 64, seed=i).to(DEVICE), 4) for i, f in enumerate((quantise_keys, quantise_values)))
    q = random(1, 4, 1, 64, seed=3, dtype=torch.bfloat16)
    got = attend_quantised(q.to(DEVICE), keys, values, 0.2)
    assert got[0].dtype == torch.bfloat16
    close(got, slow_attend(q, keys.dequantise().cpu(), values.dequantise().cpu(), 0.2))


def test_layouts_that_no_kernel_reads_are_refused():
    x = random(1, 2, 48, 48).to(DEVICE)
    keys, values = quantise_keys(x, 4, 48, tile=24), quantise_values(x, 4, tile=24, group=16)
    with pytest.raises(ValueError, match="tiles of 24"):
        attend_quantised(x[:, :, :1], keys, values, 0.2)
    keys, values = quantise_keys(x, 4, 32), quantise_values(x, 4, 24)
    with pytest.raises(ValueError, match="groups of 24"):
        attend_quantised(x[:, :, :1], keys, values, 0.2)
    with pytest.raises(ValueError, match="chunk=0"):
        attend_dense(x, x, x, 0.2, chunk=0)


def test_gradients_and_other_types_are_not_for_these_kernels():
    x = random(1, 1, 4, 16).to(DEVICE)
    assert available(x) and not available(x, x.clone().requires_grad_())
    with torch.no_grad():
        assert available(x.clone().requires_grad_())
    assert not available(x.double()) and not available(x.expand(1, 1, 4, 16).repeat(1, 1, 1, 17))
    with pytest.raises(TypeError, match="float64"):
        attend_dense(x.double(), x.double(), x.double(), 0.2)

"""The part of a merged pair: attention without restored vectors, growth, bytes, batches, saving."""

from types import SimpleNamespace

import pytest
import torch
from helpers.reference import slow_attend
from safetensors.torch import load_file, save_file

from laconic.cache.parts.pair import Merged, PairPart, extend, pair


class Neighbours:
    """What a second part needs of its layer: where it stands in it, and the parts of the layer before."""

    def __init__(self, first, second):
        self.number, self.cache, self.parts = 1, self, [second]
        self.before = SimpleNamespace(parts=[first])

    def compressed(self):
        return [self.before, self]


def merged(b, h, m, d, r, seed):
    g = torch.Generator().manual_seed(seed)
    directions = torch.randn(b, h, m, d, generator=g)
    norms = tuple(torch.rand(b, h, m, generator=g) + 0.5 for _ in range(2))
    places = torch.stack([torch.randperm(m, generator=g)[:r].sort().values for _ in range(b)])
    exact = tuple(torch.randn(b, h, r, d, generator=g) for _ in range(2))
    return Merged(directions / directions.norm(dim=-1, keepdim=True), norms, places, exact)


def columns(b, start, m, pads=None):
    found = {"index": torch.arange(start, start + m, dtype=torch.int32).expand(b, 1, m)}
    if pads is not None:
        found["valid"] = torch.tensor([[j >= pad for j in range(m)] for pad in pads])[:, None]
    return found


def slow_restore(x, i):
    """Direction times length, token by token, exact rows put over it: [B, h, m, D]."""
    out = torch.empty_like(x.directions)
    for b in range(out.shape[0]):
        for h in range(out.shape[1]):
            for j in range(out.shape[2]):
                out[b, h, j] = x.directions[b, h, j] * x.norms[i][b, h, j]
            for k, j in enumerate(x.places[b].tolist()):
                out[b, h, j] = x.exact[i][b, h, k]
    return out


def built(blocks=((20, 3),), b=2, h=2, d=8, pads=None, bits=None):
    """Both parts, and the restored keys and values of both layers."""
    parts, whole, start = None, [], 0
    for number, (m, r) in enumerate(blocks):
        keys, values = merged(b, h, m, d, r, 2 * number), merged(b, h, m, d, r, 2 * number + 1)
        own = columns(b, start, m, pads if number == 0 else None)
        if parts is None:
            parts = pair(keys, values, own, bits)
            parts[1].link(Neighbours(*parts))
        else:
            extend(*parts, keys, values, own)
        whole.append([[slow_restore(x, i) for x in (keys, values)] for i in (0, 1)])
        start += m
    return parts, [[torch.cat([block[i][x] for block in whole], 2) for x in (0, 1)] for i in (0, 1)]


@pytest.mark.parametrize("t", [1, 7])
@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("pads", [None, (6, 0)])
def test_attention_equals_attention_on_restored_entries(t, group, pads):
    parts, whole = built(((20, 3), (1, 0), (9, 1)), pads=pads)
    q = torch.randn(2, 2 * group, t, 8, generator=torch.Generator().manual_seed(5)) * 2
    bias = torch.zeros(2, 2, 30)
    if pads is not None:
        bias[0, :, :6] = -torch.inf
    for part, (keys, values) in zip(parts, whole, strict=True):
        out, lse = part.attend(q, 0.3, None)
        want, want_lse = slow_attend(q, keys, values, 0.3, bias=bias)
        torch.testing.assert_close(out.double(), want, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(lse.double(), want_lse, atol=1e-5, rtol=1e-5)
        out, _ = part.attend(q, 0.3, 2.0)
        torch.testing.assert_close(out.double(), slow_attend(q, keys, values, 0.3, bias, 2.0)[0], atol=1e-5, rtol=1e-5)


def test_many_queries_run_in_blocks(monkeypatch):
    parts, _ = built()
    q = torch.randn(2, 4, 11, 8)
    want = parts[1].attend(q, 0.3, None)
    monkeypatch.setattr("laconic.cache.parts.pair._LOGITS", 5 * 2 * 2 * 20)
    for got, whole in zip(parts[1].attend(q, 0.3, None), want, strict=True):
        torch.testing.assert_close(got, whole, atol=1e-6, rtol=1e-6)


def test_a_row_without_real_entries_gives_nothing():
    parts, _ = built(pads=(20, 0))
    out, lse = parts[0].attend(torch.randn(2, 2, 1, 8), 0.3, None)
    assert not out[0].any() and bool(lse[0].isneginf().all()) and bool(lse[1].isfinite().all())
    assert parts[1].lengths.tolist() == [[0, 0], [20, 20]] and parts[1].entries == 40


def test_what_is_restored(llama):
    parts, whole = built(((20, 3), (9, 1)), pads=(6, 0))
    for part, (keys, values) in zip(parts, whole, strict=True):
        got = part.padded()
        torch.testing.assert_close(got[0], keys)
        torch.testing.assert_close(got[1], values)
        assert got[2]["index"][1, 1].tolist() == list(range(29)) and got[2]["valid"].sum((1, 2)).tolist() == [46, 58]
        assert part.has("valid") and part.has("index") and not part.has("bias") and part.length == 29
    for x, count in (("keys", 3), ("values", 3)):
        places = parts[0].places(x)
        assert places.shape == (2, 1, 4) and int(places[..., -1].min()) >= 20
        assert parts[1].own[f"{x}.exact"].shape == (2, 2, count + 1, 8)


def test_bytes_are_counted_once():
    (first, second), _ = built(((20, 3), (9, 1)))
    own = 2 * 2 * 2 * (29 + 4 * 8) * 4  # keys and values, rows, heads: lengths and exact rows
    assert second.nbytes == own
    assert first.nbytes == own + 2 * 2 * 2 * 29 * 8 * 4 + 2 * 2 * 4 * 4  # directions, and a list of places per row
    assert first.allocated >= first.nbytes + 2 * 29 * 4


def test_growing_does_not_copy_what_is_stored():
    (first, second), _ = built(((640, 3), (8, 1)))  # the first growth makes room
    before = first.shared["keys.directions"].data_ptr(), second.own["values.norms"].data_ptr()
    for start in range(648, 672, 8):
        x = merged(2, 2, 8, 8, 1, start)
        extend(first, second, x, x, columns(2, start, 8))
    assert (first.shared["keys.directions"].data_ptr(), second.own["values.norms"].data_ptr()) == before
    assert first.length == second.length == 672


@pytest.mark.parametrize("bits", [None, 4])
def test_rows_follow_the_batch_and_the_shared_half_moves_once(bits):
    parts, _ = built(((32, 3), (32, 1)), bits=bits)
    q = torch.randn(2, 4, 1, 8)
    want = [part.attend(q, 0.3, None)[0] for part in parts]
    order = torch.tensor([1, 0, 1])
    for part in parts:  # the cache maps one layer after the other
        part.map(lambda x: x.index_select(0, order))
    for part, whole in zip(parts, want, strict=True):
        torch.testing.assert_close(part.attend(q[order], 0.3, None)[0], whole[order])


@pytest.mark.parametrize("bits", [None, 4])
def test_saved_and_loaded_in_either_order(tmp_path, bits):
    parts, _ = built(((32, 3), (32, 1)), pads=(6, 0), bits=bits)
    q = torch.randn(2, 4, 1, 8)
    loaded = []
    for i in (1, 0):
        save_file(parts[i].tensors(), tmp_path / f"{i}.safetensors")
        loaded.insert(0, PairPart.from_tensors(load_file(tmp_path / f"{i}.safetensors")))
    loaded[1].link(Neighbours(*loaded))
    more = merged(2, 2, 32, 8, 2, 77)
    for both in (parts, loaded):
        extend(*both, more, more, columns(2, 64, 32))
    for a, b in zip(loaded, parts, strict=True):
        assert torch.equal(a.attend(q, 0.3, None)[0], b.attend(q, 0.3, None)[0]) and a.nbytes == b.nbytes
        assert a.length == 96


@pytest.mark.parametrize("bits", [4, 8])
def test_packed_directions_are_close(bits):
    exact, packed = built(((64, 0),))[0], built(((64, 0),), bits=bits)[0]
    for x in ("keys", "values"):
        error = (exact[0].directions(x) - packed[1].directions(x)).abs().max()
        assert 0 < error <= 2.0 / (2**bits - 1) / 2 * 1.01
    assert packed[0].nbytes < exact[0].nbytes

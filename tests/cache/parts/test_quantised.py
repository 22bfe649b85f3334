"""The quantised part: what it attends to, what it restores, what it remembers of its entries, and how it is saved."""

import copy

import pytest
import torch
from helpers.reference import slow_attend
from safetensors.torch import load_file, save_file

from laconic.cache.parts.base import DensePart
from laconic.cache.parts.quantised import QuantisedPart, numbered, shed, without_filler
from laconic.ops.quantise import quantise_keys, quantise_values

D = 16


def entries(n, b=2, h=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(b, h, n, D, generator=generator), torch.randn(b, h, n, D, generator=generator)


def index(start, stop, b=2, h=2):
    return torch.arange(start, stop, dtype=torch.int32).expand(b, h, -1)


def packed(k, v, bits=4):
    return quantise_keys(k, bits, 8, tile=8), quantise_values(v, bits, 8, tile=8)


def part(n=24, values=None, start=0, dtype=torch.float32, **columns):
    """n keys, and values for the first `values` of them."""
    values = n if values is None else values
    k, v = entries(n)
    keys, packed_values = packed(k, v[:, :, :values])
    return QuantisedPart(keys, packed_values, {"index": index(start, start + values), **columns}, dtype)


@pytest.mark.parametrize("t", [1, 5, 40])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("values", [24, 16])
def test_attention_is_that_of_the_restored_entries(t, softcap, values):
    q = torch.randn(2, 4, t, D, generator=torch.Generator().manual_seed(1))
    valid, bias = torch.rand(2, 2, values) > 0.3, torch.randn(2, 2, values)
    hidden = bias.masked_fill(~valid, -torch.inf)
    for stored, added in ((part(values=values), None), (part(values=values, valid=valid, bias=bias), hidden)):
        k, v, _ = stored.padded()
        out, lse = stored.attend(q, 0.25, softcap)
        want = slow_attend(q, k, v, 0.25, added, softcap)
        torch.testing.assert_close(out.double(), want[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(lse.double(), want[1], atol=1e-4, rtol=1e-4)


def test_what_is_restored_is_near_to_what_was_stored():
    stored, (k, v) = part(dtype=torch.bfloat16), entries(24)
    restored = stored.padded()
    assert restored[0].dtype == restored[1].dtype == torch.bfloat16
    for got, want, groups in ((restored[0], k, k.unflatten(2, (-1, 8))), (restored[1], v, v.unflatten(3, (-1, 8)))):
        dim = 3 if got is restored[0] else 4
        step = (groups.amax(dim) - groups.amin(dim)).max() / 15
        assert (got.float() - want).abs().max() <= step / 2 * 1.01 + 0.02


def test_keys_ahead_do_not_belong_to_the_part_yet():
    stored = part(24, values=8)
    assert (stored.length, stored.ahead, stored.entries) == (8, 16, 8 * 4)
    restored = stored.padded()
    assert restored[0].shape == restored[1].shape == (2, 2, 8, D)
    assert torch.equal(restored[0], part(24).padded()[0][:, :, :8])
    _, v = entries(24)
    stored.extend(packed(v, v[:, :, 8:])[1], {"index": index(8, 24)})
    whole = part(24)
    assert stored.ahead == 0 and all(torch.equal(x, y) for x, y in zip(stored.padded()[:2], whole.padded()[:2], strict=True))


def test_bytes_are_codes_and_scales():
    stored = part(24, values=16)
    per_number = (4 + 32 / 8) / 8
    assert stored.nbytes == 4 * D * (24 + 16) * per_number
    assert stored.allocated >= stored.nbytes


def test_token_numbers_are_stored_only_where_they_are_not_consecutive():
    stored = part(start=5)
    assert not stored.has("index") and stored.allocated == stored.nbytes + stored.keys.buffers["owner"].nbytes
    assert torch.equal(stored.padded()[2]["index"], index(5, 29))
    stored.extend_keys(packed(*entries(8))[0])
    stored.extend(packed(*entries(8))[1], {"index": index(29, 37)})
    assert not stored.has("index") and torch.equal(stored.padded()[2]["index"], index(5, 37))
    stored.extend_keys(packed(*entries(8))[0])
    stored.extend(packed(*entries(8))[1], {"index": index(90, 98)})
    want = torch.cat([index(5, 37), index(90, 98)], 2)
    assert stored.has("index") and torch.equal(stored.padded()[2]["index"], want)


def test_columns_that_come_late_get_their_default_for_older_entries():
    stored = part(8)
    stored.extend_keys(packed(*entries(8))[0])
    valid = torch.rand(2, 2, 8) > 0.5
    stored.extend(packed(*entries(8))[1], {"index": index(8, 16), "valid": valid})
    stored.extend_keys(packed(*entries(8))[0])
    stored.extend(packed(*entries(8))[1], {"index": index(16, 24)})
    on = torch.ones(2, 2, 8, dtype=torch.bool)
    assert torch.equal(stored.padded()[2]["valid"], torch.cat([on, valid, on], 2))
    assert torch.equal(stored.lengths, 16 + valid.sum(-1)) and stored.entries == int(stored.lengths.sum())


def test_save_load_and_batch_changes(tmp_path):
    for values in (24, 8, None):
        stored = part(24, values=values or 24, valid=torch.rand(2, 2, values or 24) > 0.3, dtype=torch.bfloat16)
        if values is None:
            stored = QuantisedPart(stored.keys, None, {}, torch.bfloat16)
        save_file(stored.tensors(), tmp_path / "part.safetensors")
        loaded = QuantisedPart.from_tensors(load_file(tmp_path / "part.safetensors"))
        assert (loaded.length, loaded.ahead, loaded.dtype) == (stored.length, stored.ahead, torch.bfloat16)
        twin = copy.copy(loaded)
        twin.map(lambda x: x[[1, 1, 0]])
        for got, want in zip(loaded.padded()[:2], stored.padded()[:2], strict=True):
            assert torch.equal(got, want)
        for got, want in zip(twin.padded()[:2], stored.padded()[:2], strict=True):
            assert torch.equal(got, want[[1, 1, 0]])
        for name, column in stored.padded()[2].items():
            assert torch.equal(loaded.padded()[2][name], column) and torch.equal(twin.padded()[2][name], column[[1, 1, 0]])
        assert loaded.heads == (2, 2) and twin.heads == (3, 2)


def test_shedding_frees_what_it_takes():
    k, v = entries(1000)
    parts = [part(24), DensePart(k, v, {"bias": k[..., 0]})]
    keys, values, columns = shed(parts, 900)
    assert torch.equal(keys, k[:, :, :900]) and torch.equal(values, v[:, :, :900])
    assert torch.equal(columns["bias"], k[:, :, :900, 0]) and torch.equal(columns["index"], index(24, 924))
    rest = parts[1]
    assert torch.equal(rest.keys, k[:, :, 900:]) and torch.equal(rest.columns["index"], index(924, 1024))
    assert rest.allocated < 150 * 4 * (2 * D + 2) * 4


def test_token_numbers_that_are_known_are_kept():
    k, v = entries(6)
    parts = [DensePart(k, v, {"index": index(3, 9)})]
    numbered(parts)
    assert torch.equal(parts[0].columns["index"], index(3, 9))


def test_filler_widens_no_group():
    x, _ = entries(20)
    valid = torch.rand(2, 2, 20, generator=torch.Generator().manual_seed(2)) > 0.4
    x[~valid] = 1e4
    filled = without_filler(x, {"valid": valid}, 8)
    assert torch.equal(filled[valid], x[valid])
    for b in range(2):
        for h in range(2):
            for start in (0, 8, 16):
                own, real = filled[b, h, start : start + 8], valid[b, h, start : start + 8]
                assert torch.equal(own.amax(0), own[real].amax(0)) and torch.equal(own.amin(0), own[real].amin(0))
    assert without_filler(x, {}, 8) is x

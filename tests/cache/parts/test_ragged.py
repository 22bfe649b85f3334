"""The ragged part: every head has its own length, memory is that of the sum."""

import pytest
import torch
from helpers.reference import slow_attend
from safetensors.torch import load_file, save_file

from laconic.cache.parts.ragged import RaggedPart

LENGTHS = torch.tensor([[3, 7], [1, 5]])


def entries(n, b=2, h=2, d=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(b, h, n, d, generator=generator), torch.randn(b, h, n, d, generator=generator)


def part(lengths=LENGTHS, **columns):
    k, v = entries(7)
    return RaggedPart(k, v, {"index": torch.arange(7).expand(2, 2, 7), **columns}, lengths)


def bias_of(lengths, n):
    return torch.zeros(2, 2, n).masked_fill(torch.arange(n) >= lengths[..., None], -torch.inf)


@pytest.mark.parametrize("t", [1, 3])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_attend_sees_each_heads_own_entries(t, softcap):
    ragged, q = part(), torch.randn(2, 4, t, 4, generator=torch.Generator().manual_seed(1))
    out, lse = ragged.attend(q, 0.5, softcap)
    want = slow_attend(q, *entries(7), 0.5, bias_of(LENGTHS, 7), softcap)
    torch.testing.assert_close(out.double(), want[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse.double(), want[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("d", [4, 8], ids=["torch", "compiled"])
@pytest.mark.parametrize("padded", [False, True])
def test_a_bias_is_added_to_the_logits_of_its_entry(d, padded):
    (k, v), generator = entries(7, d=d), torch.Generator().manual_seed(2)
    columns = {"bias": torch.randn(2, 2, 7, generator=generator)}
    bias = columns["bias"] + bias_of(LENGTHS, 7)
    if padded:
        columns["valid"] = torch.arange(7).expand(2, 2, 7) > 0
        bias[..., 0] = -torch.inf
    ragged = RaggedPart(k, v, columns, LENGTHS)
    new = entries(1, d=d, seed=5)
    ragged.append(*new, {})  # an entry without a bias counts once
    q = torch.randn(2, 4, 1, d, generator=generator)
    bias, k, v = torch.cat([bias, torch.zeros(2, 2, 1)], -1), torch.cat([k, new[0]], 2), torch.cat([v, new[1]], 2)
    for got, want in zip(ragged.attend(q, 0.5, None), slow_attend(q, k, v, 0.5, bias), strict=True):
        torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-5)


def test_a_head_may_be_empty():
    ragged = part(torch.tensor([[0, 7], [1, 5]]))
    out, lse = ragged.attend(torch.randn(2, 4, 2, 4), 0.5, None)
    assert torch.equal(out[0, :2], torch.zeros(2, 2, 4)) and bool(lse[0, :2].isneginf().all())
    assert bool(lse[0, 2:].isfinite().all()) and bool(lse[1].isfinite().all())


def test_bytes_are_those_of_the_sum_of_the_heads():
    ragged = part()
    assert ragged.length == 7 and ragged.entries == 16 and torch.equal(ragged.lengths, LENGTHS)
    assert ragged.nbytes == 16 * 2 * 4 * 4
    rows = 16 + 4 * 32  # every head has 32 spare entries
    assert ragged.allocated == rows * (2 * 4 * 4 + 4) + 3 * 4 * 8  # and three numbers for every head


def test_memory_follows_the_sum_and_not_the_longest_head():
    k, v = entries(4000)
    lengths = torch.tensor([[4000, 100], [100, 100]])
    ragged = RaggedPart(k, v, {}, lengths)
    assert ragged.nbytes == 4300 * 2 * 4 * 4
    assert ragged.allocated <= 1.07 * ragged.nbytes


def test_appending_copies_the_token_whatever_the_shortest_head():
    k, v = entries(4000)
    ragged = RaggedPart(k, v, {}, torch.tensor([[4000, 2], [2, 4000]]))
    moves, place = 0, ragged._keys.data_ptr()
    for i in range(2000):
        ragged.append(*entries(1, seed=i), {})
        moves, place = moves + (ragged._keys.data_ptr() != place), ragged._keys.data_ptr()
    assert ragged.lengths.tolist() == [[6000, 2002], [2002, 6000]]
    assert moves <= 14  # 2000 tokens, each growth gives a sixteenth of the mean head


def test_append_goes_after_every_head_and_survives_growth():
    ragged = part()
    k, v = entries(7)
    new = entries(50, seed=3)
    for i in range(50):
        one = [x[:, :, i : i + 1] for x in new]
        ragged.append(*one, {"index": torch.full((2, 2, 1), 100 + i, dtype=torch.int32)})
    keys, values, columns = ragged.padded()
    for b in range(2):
        for h in range(2):
            n = int(LENGTHS[b, h])
            own = columns["valid"][b, h]
            assert torch.equal(keys[b, h, own], torch.cat([k[b, h, :n], new[0][b, h]]))
            assert torch.equal(values[b, h, own], torch.cat([v[b, h, :n], new[1][b, h]]))
            assert columns["index"][b, h, own].tolist() == [*range(n), *range(100, 150)]


def test_padding_appended_to_a_row_is_hidden_and_not_counted():
    ragged = part()
    valid = torch.tensor([[False, True], [True, True]])[:, None].expand(2, 2, 2)
    new = entries(2, seed=4)
    ragged.append(*new, {"valid": valid})
    assert ragged.lengths.tolist() == [[4, 8], [3, 7]] and ragged.entries == 22
    q = torch.randn(2, 4, 1, 4)
    out, _ = ragged.attend(q, 0.5, None)
    keys, values = (torch.cat(x, 2) for x in zip(entries(7), new, strict=True))
    bias = torch.cat([bias_of(LENGTHS, 7), torch.zeros(2, 2, 2).masked_fill(~valid, -torch.inf)], -1)
    torch.testing.assert_close(out.double(), slow_attend(q, keys, values, 0.5, bias)[0], atol=1e-5, rtol=1e-5)
    ragged.map(lambda x: x.flip(0))
    flipped, _ = ragged.attend(q.flip(0), 0.5, None)
    torch.testing.assert_close(flipped.flip(0), out)


def test_map_selects_batch_rows():
    ragged = part()
    want, _ = ragged.attend(torch.ones(2, 4, 1, 4), 0.5, None)
    ragged.map(lambda x: x[torch.tensor([1, 1, 0])])
    assert ragged.lengths.tolist() == [[1, 5], [1, 5], [3, 7]]
    got, _ = ragged.attend(torch.ones(3, 4, 1, 4), 0.5, None)
    torch.testing.assert_close(got, want[[1, 1, 0]])


def test_file_round_trip(tmp_path):
    ragged = part(mass=torch.rand(2, 2, 7))
    ragged.append(*entries(2, seed=2), {})
    save_file(ragged.tensors(), tmp_path / "part.safetensors")
    again = RaggedPart.from_tensors(load_file(tmp_path / "part.safetensors"))
    assert again.counts == ragged.counts and again.nbytes == ragged.nbytes
    for a, b in zip(again.padded(), ragged.padded(), strict=True):
        if isinstance(a, dict):
            assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
        else:
            assert torch.equal(a, b)
    again.append(*entries(1), {})
    assert again.lengths.tolist() == (LENGTHS + 3).tolist()

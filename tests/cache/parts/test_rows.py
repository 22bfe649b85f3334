"""Rows with their own parts: each batch row is what it would be by itself."""

import pytest
import torch
from helpers.reference import slow_attend
from safetensors.torch import load_file, save_file

from laconic.cache.parts.base import DensePart
from laconic.cache.parts.quantised import QuantisedPart
from laconic.cache.parts.rows import RowsPart
from laconic.ops.quantise import quantise_keys, quantise_values

D, PADDING = 16, [5, 0, 9]


def entries(n, b=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(b, 2, n, D, generator=generator), torch.randn(b, 2, n, D, generator=generator)


def index(start, stop, b=3):
    return torch.arange(start, stop, dtype=torch.int32).expand(b, 2, -1)


def packed(n):
    k, v = entries(n, seed=4)
    keys, values = quantise_keys(k, 4, 8, tile=8), quantise_values(v, 4, 8, tile=8)
    return QuantisedPart(keys, values, {"index": index(0, n)}, torch.float32)


def rows(n=12, front=0):
    """A batch padded on the left, after `front` packed entries per row."""
    k, v = entries(n)
    valid = torch.arange(n)[None, None] >= torch.tensor(PADDING)[:, None, None]
    columns = {"valid": valid.expand(3, 2, n), "index": index(front, front + n)}
    before = [packed(front)] if front else []
    return RowsPart.split([*before, DensePart(k, v, columns)], 3)


@pytest.mark.parametrize("front", [0, 8])
def test_rows_hold_their_real_entries(front):
    stored = rows(front=front)
    k, v = entries(12)
    for b, padding in enumerate(PADDING):
        last = stored.rows[b][-1]
        assert torch.equal(last.keys, k[b : b + 1, :, padding:]) and torch.equal(last.values, v[b : b + 1, :, padding:])
        assert last.columns["index"][0, 0].tolist() == list(range(front + padding, front + 12)) and last.plain
    assert torch.equal(stored.lengths, front + 12 - torch.tensor(PADDING)[:, None].expand(3, 2))
    assert stored.length == front + 12 and not stored.plain and stored.has("valid") and stored.has("index")
    assert stored.nbytes == sum((12 - p) * 2 * 2 * D * 4 for p in PADDING) + (packed(8).nbytes if front else 0)
    assert stored.allocated > stored.nbytes


@pytest.mark.parametrize("front", [0, 8])
@pytest.mark.parametrize("t", [1, 3])
def test_attention_is_that_of_every_row_alone(front, t):
    stored, q = rows(front=front), torch.randn(3, 4, t, D, generator=torch.Generator().manual_seed(1))
    out, lse = stored.attend(q, 0.25, None)
    k, v, columns = stored.padded()
    want = slow_attend(q, k, v, 0.25, torch.zeros(3, 2, front + 12).masked_fill(~columns["valid"], -torch.inf))
    torch.testing.assert_close(out.double(), want[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(lse.double(), want[1], atol=1e-4, rtol=1e-4)


def test_the_rectangle_has_its_filler_at_the_end():
    keys, values, columns = rows(front=8).padded()
    k, v = entries(12)
    front = packed(8).padded()
    for b, padding in enumerate(PADDING):
        n = 20 - padding
        assert columns["valid"][b, 0].tolist() == [True] * n + [False] * padding
        assert columns["index"][b, 1].tolist() == [*range(8), *range(8 + padding, 20)] + [-1] * padding
        assert torch.equal(keys[b, :, 8:n], k[b, :, padding:]) and torch.equal(keys[b, :, :8], front[0][b])
        assert torch.equal(values[b, :, 8:n], v[b, :, padding:]) and torch.equal(values[b, :, :8], front[1][b])


def test_new_entries_go_to_every_row_without_their_padding():
    stored, (k, v) = rows(), entries(4, seed=5)
    stored.append(k[:, :, :1], v[:, :, :1], {"index": index(12, 13)})
    valid = torch.tensor([[True] * 3, [False, True, True], [False] * 3])[:, None].expand(3, 2, 3)
    stored.append(k[:, :, 1:], v[:, :, 1:], {"index": index(13, 16), "valid": valid})
    assert stored.lengths[:, 0].tolist() == [7 + 1 + 3, 12 + 1 + 2, 3 + 1 + 0]
    assert stored.rows[0][-1].columns["index"][0, 0].tolist() == [*range(5, 16)]
    assert stored.rows[1][-1].columns["index"][0, 0].tolist() == [*range(13), 14, 15]
    assert torch.equal(stored.rows[1][-1].keys[0, :, -2:], k[1, :, 2:]) and stored.rows[2][-1].length == 4


def test_a_row_of_padding_alone_waits_for_its_tokens():
    k, v = entries(4)
    valid = torch.tensor([True, False, True])[:, None, None].expand(3, 2, 4)
    stored = RowsPart.split([DensePart(k, v, {"valid": valid})], 3)
    out, lse = stored.attend(torch.randn(3, 4, 1, D), 0.25, None)
    assert torch.equal(out[1], torch.zeros(4, 1, D)) and bool(lse[1].isneginf().all()) and bool(lse[[0, 2]].isfinite().all())
    stored.append(k[:, :, :1], v[:, :, :1], {"index": index(4, 5)})
    out, _ = stored.attend(torch.randn(3, 4, 1, D), 0.25, None)
    torch.testing.assert_close(out[1, :, 0], v[1, :, 0].repeat_interleave(2, 0))
    assert stored.lengths[:, 0].tolist() == [5, 1, 5]


def test_heads_of_different_lengths_keep_filler():
    k, v = entries(4, b=1)
    valid = torch.tensor([[[True, True, True, False], [True, False, True, False]]])
    stored = RowsPart.split([DensePart(k, v, {"valid": valid})], 1)
    last = stored.rows[0][-1]
    assert last.columns["valid"].tolist() == [[[True, True, True], [True, True, False]]]
    assert torch.equal(last.keys[0, 1, :2], k[0, 1, [0, 2]]) and stored.lengths.tolist() == [[3, 2]]


@pytest.mark.parametrize("order", [[2, 0, 0, 1], [1]])
def test_batch_changes_copy_rows(order):
    stored = rows(front=8)
    before = stored.padded()
    stored.map(lambda x: x.index_select(0, torch.tensor(order)))
    assert torch.equal(stored.padded()[0], before[0][order][:, :, : stored.length])
    assert torch.equal(stored.padded()[2]["index"], before[2]["index"][order][..., : stored.length])
    stored.append(*(torch.full((len(order), 2, 1, D), 7.0) for _ in range(2)), {"index": index(20, 21, len(order))})
    stored.rows[0][-1].keys.zero_()
    assert all(bool((row[-1].keys != 0).any()) for row in stored.rows[1:])


def test_save_and_load(tmp_path):
    stored = rows(front=8)
    save_file(stored.tensors(), tmp_path / "part.safetensors")
    loaded = RowsPart.from_tensors(load_file(tmp_path / "part.safetensors"))
    assert [[part.kind for part in row] for row in loaded.rows] == [["quantised", "dense"]] * 3
    for got, want in zip(loaded.padded()[:2], stored.padded()[:2], strict=True):
        assert torch.equal(got, want)
    assert all(torch.equal(loaded.padded()[2][name], x) for name, x in stored.padded()[2].items())

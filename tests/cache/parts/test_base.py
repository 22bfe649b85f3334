"""The dense part: growth, holes, columns, files."""

import pytest
import torch
from helpers.reference import slow_attend
from safetensors.torch import load_file, save_file

from laconic.cache.parts.base import DensePart, slack


def entries(n, b=2, h=2, d=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(b, h, n, d, generator=generator), torch.randn(b, h, n, d, generator=generator)


def queries(t=1, b=2, heads=4, d=4, seed=9):
    return torch.randn(b, heads, t, d, generator=torch.Generator().manual_seed(seed))


def test_takes_copies():
    k, v = entries(5)
    part = DensePart(k, v, {})
    before = k.clone()
    k.zero_()
    assert torch.equal(part.keys, before)


def test_appending_a_token_copies_the_token_and_not_the_cache():
    k, v = entries(64)
    part = DensePart(k, v, {})
    moves, copied, place = 0, 0, part._keys.data_ptr()
    for i in range(3000):
        before = part.length
        part.append(*entries(1, seed=i), {})
        if part._keys.data_ptr() != place:
            moves, copied, place = moves + 1, copied + before, part._keys.data_ptr()
    assert part.length == 3064
    assert moves < 60  # a sixteenth at a time, after the first few hundred
    assert copied < 24 * part.length  # each entry is copied a bounded number of times
    assert part.allocated <= 1.07 * part.nbytes


def test_views_share_memory_with_the_buffer():
    part = DensePart(*entries(10), {})
    assert part.keys.data_ptr() == part._keys.data_ptr()
    assert part.values.data_ptr() == part._values.data_ptr()


def test_spare_room_is_a_sixteenth():
    assert [slack(n) for n in (1, 512, 1600, 16_000)] == [32, 32, 100, 1000]


@pytest.mark.parametrize("t", [1, 3])
def test_attend_sees_every_real_entry(t):
    k, v = entries(7)
    valid = torch.ones(2, 2, 7, dtype=torch.bool)
    valid[0, :, :3] = False
    part = DensePart(k, v, {"valid": valid})
    more = entries(2, seed=5)
    part.append(*more, {})
    bias = torch.zeros(2, 2, 9)
    bias[0, :, :3] = -torch.inf
    out, lse = part.attend(queries(t), 0.5, None)
    want = slow_attend(queries(t), torch.cat([k, more[0]], 2), torch.cat([v, more[1]], 2), 0.5, bias)
    torch.testing.assert_close(out.double(), want[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse.double(), want[1], atol=1e-5, rtol=1e-5)
    assert part.lengths.tolist() == [[6, 6], [9, 9]] and part.entries == 30


def test_columns_that_come_late_have_their_defaults():
    part = DensePart(*entries(4), {})
    one = torch.full((2, 2, 1), 40, dtype=torch.int32)
    part.append(*entries(1), {"index": one, "mass": torch.full((2, 2, 1), 0.5), "valid": one == 0})
    assert part.columns["index"][1, 1].tolist() == [0, 1, 2, 3, 40]
    assert part.columns["mass"][0, 1].tolist() == [0, 0, 0, 0, 0.5]
    assert part.columns["valid"][0, 0].tolist() == [True] * 4 + [False]
    part.append(*entries(2), {})
    assert part.columns["valid"][0, 0].tolist() == [True] * 4 + [False, True, True]
    assert part.columns["mass"].dtype == torch.float32 and part.columns["index"].dtype == torch.int32


def test_write_overwrites_a_column_and_survives_growth():
    part = DensePart(*entries(3), {}, room=0)
    part.write({"mass": torch.arange(12.0).view(2, 2, 3)})
    part.append(*entries(1), {})
    assert part.columns["mass"][1, 1].tolist() == [9, 10, 11, 0]


def test_replace_moves_the_last_entry_into_the_slot():
    k, v = entries(5)
    part = DensePart(k, v, {"index": torch.arange(5).expand(2, 2, 5)})
    slot = torch.tensor([[0, 2], [4, 3]])
    part.replace(slot, torch.ones(2, 2, dtype=torch.bool))
    assert part.length == 4
    assert part.columns["index"].tolist() == [[[4, 1, 2, 3], [0, 1, 4, 3]], [[0, 1, 2, 3], [0, 1, 2, 4]]]
    assert torch.equal(part.keys[0, 1, 2], k[0, 1, 4]) and torch.equal(part.values[0, 1, 2], v[0, 1, 4])


def test_replace_in_some_rows_leaves_holes_that_are_filled_first():
    part = DensePart(*entries(4), {"index": torch.arange(4).expand(2, 2, 4)})
    row0, row1 = torch.tensor([[True] * 2, [False] * 2]), torch.tensor([[False] * 2, [True] * 2])
    slot = torch.full((2, 2), 1)
    part.replace(slot, row0)
    assert part.length == 4 and part.lengths.tolist() == [[3, 3], [4, 4]]
    part.replace(slot, row1)  # now every head has a hole: the rectangle shrinks
    assert part.length == 3 and part.lengths.tolist() == [[3, 3], [3, 3]]
    assert part.columns["index"].tolist() == [[[0, 3, 2]] * 2, [[0, 3, 2]] * 2]


def test_bytes_count_keys_and_values():
    part = DensePart(*entries(6), {})
    assert part.nbytes == 2 * 2 * 2 * 6 * 4 * 4
    half = DensePart(*(x.bfloat16() for x in entries(6)), {})
    assert half.nbytes == part.nbytes // 2
    assert part.allocated == 2 * 2 * 2 * (6 + 32) * 4 * 4


def test_file_round_trip(tmp_path):
    part = DensePart(*entries(6), {"index": torch.arange(6).expand(2, 2, 6), "valid": torch.rand(2, 2, 6) < 0.5})
    part.append(*entries(1), {})
    save_file(part.tensors(), tmp_path / "part.safetensors")
    again = DensePart.from_tensors(load_file(tmp_path / "part.safetensors"))
    assert torch.equal(again.keys, part.keys) and torch.equal(again.values, part.values)
    assert again.columns.keys() == part.columns.keys()
    for name, column in part.columns.items():
        assert torch.equal(again.columns[name], column) and again.columns[name].dtype == column.dtype
    size = (tmp_path / "part.safetensors").stat().st_size
    assert size < part.nbytes + sum(c.numel() * c.itemsize for c in part.columns.values()) + 1000  # no spare room on disk

"""Packed codes and min-max groups against loops written from the equations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from laconic.ops.quantise import BITS, Quantised, pack, quantise_keys, quantise_values, unpack

QUANTISE = {"keys": quantise_keys, "values": quantise_values}


def normal(*shape, seed=0, scale=3.0, offset=5.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale + offset


def slow(x, bits, groups):
    """x' where every list of positions in `groups` is one group, and its step; zero and step as float16 stores them."""
    out, steps = torch.empty_like(x), torch.empty_like(x)
    for group in groups:
        numbers = [float(x[place]) for place in group]
        zero = float(torch.tensor(min(numbers)).half())
        if zero > min(numbers):
            zero = float(torch.nextafter(torch.tensor(zero).half(), torch.tensor(-torch.inf).half()))
        exact = (max(numbers) - zero) / (2**bits - 1)
        step = float(torch.tensor(exact).half())
        if step < exact:
            step = float(torch.nextafter(torch.tensor(step).half(), torch.tensor(torch.inf).half()))
        for place in group:
            code = 0 if step == 0 else min(max(round((float(x[place]) - zero) / step), 0), 2**bits - 1)
            out[place], steps[place] = code * step + zero, step
    return out, steps


def key_groups(b, h, n, d, span):
    for r in range(b):
        for head in range(h):
            for channel in range(d):
                for start in range(0, n, span):
                    yield [(r, head, token, channel) for token in range(start, min(start + span, n))]


def value_groups(b, h, n, d, width):
    for r in range(b):
        for token in range(n):
            if width is None:
                yield [(r, head, token, channel) for head in range(h) for channel in range(d)]
                continue
            for head in range(h):
                for start in range(0, d, width):
                    yield [(r, head, token, channel) for channel in range(start, start + width)]


@given(bits=st.sampled_from(BITS), eights=st.integers(1, 9), seed=st.integers(0, 9))
def test_unpack_is_the_inverse_of_pack_and_every_bit_is_used(bits, eights, seed):
    codes = torch.randint(0, 2**bits, (2, 3, 8 * eights), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    packed = pack(codes, bits)
    assert packed.shape == (2, 3, eights * bits) and packed.dtype == torch.uint8
    assert torch.equal(unpack(packed, bits), codes)


def test_planes():
    assert pack(torch.arange(8, dtype=torch.uint8), 4).tolist() == [0 | 4 << 4, 1 | 5 << 4, 2 | 6 << 4, 3 | 7 << 4]
    assert pack(torch.tensor([3, 2, 1, 0, 2, 3, 0, 1], dtype=torch.uint8), 2).tolist() == [0b00100111, 0b01110010]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("span", [8, 16, None])
def test_keys_share_a_group_along_tokens(bits, span):
    x = normal(2, 2, 21, 8)
    q = quantise_keys(x, bits, span, tile=8)
    want, steps = slow(x, bits, key_groups(2, 2, 21, 8, span or 24))
    got = q.dequantise()
    close = (got - want).abs() <= steps * 0.01 + 1e-6
    assert close.float().mean() > 0.99  # the rest are ties of rounding and float16 neighbours
    assert bool(((got - x).abs() <= steps * 0.51).all())


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("width", [8, 16, None])
def test_values_share_a_group_along_channels(bits, width):
    x = normal(2, 2, 11, 16)
    q = quantise_values(x, bits, width, tile=8)
    want, steps = slow(x, bits, value_groups(2, 2, 11, 16, width))
    got = q.dequantise()
    assert ((got - want).abs() <= steps * 0.01 + 1e-6).float().mean() > 0.99
    assert bool(((got - x).abs() <= steps * 0.51).all())


@pytest.mark.parametrize("what", QUANTISE)
@given(bits=st.sampled_from(BITS), scale=st.sampled_from([1e-4, 1.0, 300.0]), offset=st.sampled_from([0.0, -7.7, 900.0]))
def test_the_error_is_at_most_half_a_stored_step(what, bits, scale, offset):
    x = normal(1, 2, 16, 16, scale=scale, offset=offset)
    q = QUANTISE[what](x, bits, 16, tile=16)
    step = q.stored("step").float()
    step = step.view(1, 2, 1, 16) if what == "keys" else step.view(1, 2, 16, 1)
    assert bool(((q.dequantise() - x).abs() <= 0.5 * step * (1 + 1e-5) + 1e-6 * x.abs()).all())


@pytest.mark.parametrize("what", QUANTISE)
def test_a_group_of_equal_numbers_is_exact(what):
    x = torch.full((1, 1, 8, 8), -2.5)
    q = QUANTISE[what](x, 2, 8, tile=8)
    assert torch.equal(q.dequantise(), x) and not q.stored("step").any()


def test_groups_run_along_tokens_for_keys_and_along_channels_for_values():
    x = normal(1, 1, 32, 16)
    changed = x.clone()
    changed[0, 0, 3, 2] += 100
    keys = quantise_keys(x, 4, 16, tile=16).dequantise() != quantise_keys(changed, 4, 16, tile=16).dequantise()
    values = quantise_values(x, 4, 8, tile=16).dequantise() != quantise_values(changed, 4, 8, tile=16).dequantise()
    assert bool(keys[0, 0, :16, 2].any()) and int(keys.sum()) == int(keys[0, 0, :16, 2].sum())
    assert bool(values[0, 0, 3, :8].any()) and int(values.sum()) == int(values[0, 0, 3, :8].sum())


@pytest.mark.parametrize("bits", BITS)
def test_bytes_follow_the_formula(bits):
    x = normal(2, 2, 128, 64)
    for group in (32, 64):
        for quantise in QUANTISE.values():
            assert quantise(x, bits, group).nbytes == x.numel() * (bits + 32 / group) / 8
    assert quantise_keys(x, bits, None).nbytes == x.numel() * (bits + 32 / 128) / 8
    assert quantise_values(x, bits, None).nbytes == x.numel() * (bits + 32 / (2 * 64)) / 8


@pytest.mark.parametrize("head", [64, 128])
def test_four_bits_at_the_default_group_take_less_than_three_tenths_of_float16(head):
    x = normal(1, 2, 256, head)
    assert quantise_keys(x, 4).nbytes + quantise_values(x, 4).nbytes <= 0.30 * 2 * x.numel() * 2


@pytest.mark.parametrize("what", QUANTISE)
@pytest.mark.parametrize("group", [16, None])
def test_growing_by_blocks_changes_nothing_earlier_and_copies_rarely(what, group):
    blocks = [normal(2, 2, 16 if i else 80, 16, seed=i) for i in range(60)]
    whole = QUANTISE[what](blocks[0], 3, group, tile=8)
    moves, place = 0, whole.buffers["codes"].data_ptr()
    for block in blocks[1:]:
        whole.append(QUANTISE[what](block, 3, group, tile=8))
        moves, place = moves + (whole.buffers["codes"].data_ptr() != place), whole.buffers["codes"].data_ptr()
    want = torch.cat([QUANTISE[what](block, 3, group, tile=8).dequantise() for block in blocks], 2)
    assert whole.length == 80 + 59 * 16 and torch.equal(whole.dequantise(), want)
    assert moves <= 25  # 59 appends
    assert torch.equal(whole.dequantise(3, 7), want[:, :, 24:56])
    assert whole.nbytes < sum(x.nbytes for x in whole.buffers.values()) < 1.2 * whole.nbytes


@pytest.mark.parametrize("what", QUANTISE)
def test_map_and_file_round_trip(what, tmp_path):
    q = QUANTISE[what](normal(2, 2, 40, 16), 4, 16, tile=8)
    q.append(QUANTISE[what](normal(2, 2, 8, 16, seed=1), 4, 16, tile=8))
    q.append(QUANTISE[what](normal(2, 2, 5, 16, seed=2), 4, 16, tile=8))
    want = q.dequantise()
    save_file(q.tensors(), tmp_path / "q.safetensors")
    again = Quantised.from_tensors(load_file(tmp_path / "q.safetensors"))
    assert torch.equal(again.dequantise(), want) and again.nbytes == q.nbytes and again.length == 53
    again.map(lambda x: x[torch.tensor([1, 0, 1])])
    assert torch.equal(again.dequantise(), want[[1, 0, 1]])


def test_errors_say_what_is_allowed():
    x = normal(1, 1, 16, 16)
    with pytest.raises(ValueError, match="bits=5"):
        quantise_keys(x, 5)
    with pytest.raises(ValueError, match=r"group=20.*multiple of the tile of 32"):
        quantise_keys(x, 4, 20)
    with pytest.raises(ValueError, match="divides the head size 16"):
        quantise_values(x, 4, 12)
    with pytest.raises(ValueError, match="65504"):
        quantise_keys(x * 1e6, 4)
    with pytest.raises(ValueError, match="no tokens"):
        quantise_values(x[:, :, :0], 4)
    q = quantise_keys(x, 4, 32)
    with pytest.raises(ValueError, match="whole tiles of 32"):
        q.append(quantise_keys(x, 4, 32))
    with pytest.raises(ValueError, match="quantise both alike"):
        q.append(quantise_keys(x, 2, 32))

"""D + L + S against loops written from the equations (arXiv 2403.05527), and attention that never builds it."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from laconic.ops.corrected import Corrected, Settings, approximate
from laconic.ops.lowrank import power_iteration
from laconic.ops.quantise import quantise_keys, quantise_values

BOTH = pytest.mark.parametrize("per", ["channel", "token"])
SMALL = {"group": 8, "tile": 8}


def block(n=32, d=16, planted=12, b=2, h=2, seed=0):
    """Normal numbers with a few outliers per head."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(b, h, n, d, generator=generator)
    for row in x.view(b * h, -1):
        at = torch.randperm(n * d, generator=generator)[:planted]
        row[at] += 10 * torch.randn(planted, generator=generator).sign()
    return x


def slow_outliers(x, per, share):
    """Marked places as a set of (b, head, token, channel): the k smallest and k largest of every vector, by sorting."""
    b, h, n, d = x.shape
    marked = set()
    for i in range(b):
        if per == "channel":
            vectors = [[(i, j, t, c) for t in range(n)] for j in range(h) for c in range(d)]
        else:
            vectors = [[(i, j, t, c) for j in range(h) for c in range(d)] for t in range(n)]
        for vector in vectors:
            k = int(share / 2 * len(vector) + 1e-6)
            order = sorted(vector, key=lambda place: float(x[place]))
            marked |= set(order[:k]) | set(order[len(order) - k :])
    return marked


def slow_approximation(x, per, settings):
    """D + S, and the low-rank part of every head, vector by vector, in float64."""
    marked = slow_outliers(x, per, settings.outliers)
    filled = x.double().clone()
    for i, j, t, c in marked:
        vector = x[i, j, :, c] if per == "channel" else x[i, :, t]
        filled[i, j, t, c] = float(vector.double().mean())
    quantise = quantise_keys if per == "channel" else quantise_values  # checked number by number in test_quantise.py
    near = quantise(filled.float(), settings.bits, settings.group, tile=settings.tile).dequantise().double()
    for place in marked:
        near[place] = float(x[place])
    rest = x.double() - near
    if settings.rank:
        p, q = power_iteration(rest, settings.rank, loops=settings.loops, seed=settings.seed)
        near += (q @ p.mT).double()
        if settings.masked:
            for place in marked:
                near[place] = float(x[place])
    return near


def error(x, per, **settings):
    return float((approximate(x, per, Settings(**settings)).dequantise() - x).norm() / x.norm())


@BOTH
@pytest.mark.parametrize(
    "settings",
    [
        {"bits": 2, **SMALL},
        {"bits": 4, "outliers": 0.25, **SMALL},
        {"bits": 2, "outliers": 0.13, "rank": 2, **SMALL},
        {"bits": 3, "outliers": 0.25, "rank": 2, "masked": True, **SMALL},
        {"bits": 4, "outliers": 0.25, "rank": 1, "group": None, "tile": 8},
    ],
    ids=str,
)
def test_it_is_the_published_approximation(per, settings):
    x, settings = block(n=24, d=8), Settings(**settings)
    want = slow_approximation(x, per, settings)
    got = approximate(x, per, settings).dequantise().double()
    torch.testing.assert_close(got, want, atol=2e-3 if settings.rank else 1e-5, rtol=0)  # factors are stored in float16


@BOTH
def test_outliers_are_the_ends_of_a_sorted_vector_and_exact(per):
    x = block()
    share = 0.26
    found = approximate(x, per, Settings(2, outliers=share, **SMALL))
    marked = slow_outliers(x, per, share)
    got, size = found.dequantise(), 32 if per == "channel" else 2 * 16
    assert found.terms["S"].shape[-1] == 2 * int(share / 2 * size) == found.terms["at"].shape[-1]
    assert len(marked) == 2 * int(share / 2 * size) * x.numel() // size
    for place in marked:
        assert float(got[place]) == pytest.approx(float(x[place]), abs=2e-6)
    at = found.terms["at"].long()
    if per == "channel":
        places = {(i, j, int(t), c) for i in range(2) for j in range(2) for c in range(16) for t in at[i, j, 0, c]}
    else:
        places = {(i, int(c) // 16, t, int(c) % 16) for i in range(2) for t in range(32) for c in at[i, 0, t]}
    assert places == marked


@BOTH
def test_the_low_rank_term_spares_outliers_only_where_it_is_told_to(per):
    x = block()
    marked = slow_outliers(x, per, 0.26)
    for masked, exact in ((False, False), (True, True)):
        got = approximate(x, per, Settings(2, outliers=0.26, rank=3, masked=masked, **SMALL)).dequantise()
        assert (max(abs(float(got[place] - x[place])) for place in marked) < 1e-5) == exact


@BOTH
@pytest.mark.parametrize("share", [0.0, 0.26])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_all_directions_restore_the_block(per, bits, share):
    x = block()
    approximation = approximate(x, per, Settings(bits, outliers=share, rank=16, **SMALL))
    # factors are float16: 2^-11 of an error that is already smaller than the outliers
    assert (approximation.dequantise() - x).abs().max() < 2e-3
    plain = approximate(x, per, Settings(bits, outliers=share, **SMALL))
    p, q = power_iteration(x - plain.dequantise(), 16)
    torch.testing.assert_close(plain.dequantise() + q @ p.mT, x, atol=2e-5, rtol=2e-5)


@BOTH
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_each_term_lowers_the_error_and_both_together_most(per, bits):
    x = block(n=256, d=64, planted=60, b=1, h=1)
    terms = {"S": {"outliers": 0.05}, "L": {"rank": 4}, "": {}, "LS": {"outliers": 0.05, "rank": 4}}
    e = {name: error(x, per, bits=bits, **term) for name, term in terms.items()}
    assert e["LS"] < e["S"] < e[""] and e["LS"] < e["L"] < e[""]


@BOTH
def test_the_error_does_not_rise_with_rank_outliers_or_bits(per):
    x = block(n=256, d=64, planted=60, b=1, h=1)
    for name, values in (("rank", (0, 1, 2, 4, 16, 64)), ("outliers", (0.0, 0.05, 0.1, 0.3, 1.0)), ("bits", (2, 3, 4, 8))):
        errors = [error(x, per, **{"bits": 2, "rank": 4, "outliers": 0.05} | {name: value}) for value in values]
        assert errors == sorted(errors, reverse=True) and errors[-1] < 0.2 * errors[0]


def test_key_groups_run_along_tokens_and_value_groups_along_channels():
    """When a token changes, keys change in one group of tokens and values only in that token, and there only in its own
    group."""
    x = block(n=32, d=16, planted=0)
    changed = x.clone()
    changed[0, 1, 10, 3] += 5
    before, after = (approximate(y, "channel", Settings(2, **SMALL)).dequantise() for y in (x, changed))
    where = (before != after).nonzero()
    assert bool((where[:, :2] == torch.tensor([0, 1])).all()) and bool((where[:, 3] == 3).all())
    assert set(where[:, 2].tolist()) <= set(range(8, 16)) and len(where) > 1
    before, after = (approximate(y, "token", Settings(2, **SMALL)).dequantise() for y in (x, changed))
    where = (before != after).nonzero()
    assert bool((where[:, :3] == torch.tensor([0, 1, 10])).all()) and len(where) > 1
    assert set(where[:, 3].tolist()) <= set(range(8))


@BOTH
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("blocks", [1, 3])
def test_attention_terms_equal_those_of_the_restored_matrix(per, masked, blocks):
    settings = Settings(2, outliers=0.26, rank=2, masked=masked, **SMALL)
    stored = approximate(block(), per, settings)
    for i in range(1, blocks):
        stored.append(approximate(block(seed=i), per, settings))
    n = 32 * blocks
    assert stored.length == n
    low = stored.dequantise() - stored.bulk.dequantise()
    generator = torch.Generator().manual_seed(7)
    rows, weights = torch.randn(2, 2, 5, 16, generator=generator), torch.rand(2, 2, 5, n, generator=generator)
    if per == "channel":
        torch.testing.assert_close(stored.logits(rows), rows @ low.mT, atol=1e-4, rtol=1e-4)
    else:
        torch.testing.assert_close(stored.product(weights), weights @ low, atol=1e-4, rtol=1e-4)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("group", [8, None])
@pytest.mark.parametrize(("share", "rank"), [(0.0, 0), (0.26, 0), (0.0, 3), (0.26, 3)])
def test_bytes_are_those_of_the_formula(per, dtype, group, share, rank):
    b, h, n, d, bits = 2, 2, 64, 16, 4
    x = torch.cat([block(), block(seed=1)], 2).to(dtype)
    stored = approximate(x, per, Settings(bits, group, 8, share, rank))
    vector = n if per == "channel" else h * d
    scales = 32 / (vector if group is None else group)
    marked = 2 * int(share / 2 * vector) / vector
    per_number = bits + scales + marked * (8 * dtype.itemsize + 16) + 16 * rank * (n + d) / (n * d)
    assert stored.nbytes * 8 == pytest.approx(b * h * n * d * per_number, abs=1e-6)


@BOTH
def test_earlier_blocks_never_change(per):
    settings = Settings(2, outliers=0.26, rank=2, **SMALL)
    stored = approximate(block(), per, settings)
    first = {name: x.clone() for name, x in stored.tensors().items()}
    for i in range(1, 9):
        stored.append(approximate(block(seed=i), per, settings))
    for name, x in stored.tensors().items():
        if name not in ("block", "layout"):
            assert torch.equal(x[:, :, : first[name].shape[2]], first[name])


@BOTH
def test_save_load_and_batch_changes(per, tmp_path):
    settings = Settings(3, outliers=0.26, rank=2, **SMALL)
    stored = approximate(block(), per, settings)
    stored.append(approximate(block(seed=1), per, settings))
    save_file(stored.tensors(), tmp_path / "x.safetensors")
    loaded = Corrected.from_tensors(load_file(tmp_path / "x.safetensors"))
    assert torch.equal(loaded.dequantise(), stored.dequantise()) and loaded.kind == stored.kind
    more = approximate(block(seed=2), per, settings)
    want = stored.dequantise()
    loaded.append(more)
    stored.append(more)
    assert torch.equal(loaded.dequantise(), stored.dequantise()) and torch.equal(loaded.dequantise()[:, :, :64], want)
    whole = stored.dequantise()
    stored.map(lambda y: y[[1, 0, 1]])
    assert torch.equal(stored.dequantise(), whole[[1, 0, 1]])


def test_blocks_of_another_kind_are_refused():
    stored = approximate(block(), "channel", Settings(2, rank=2, **SMALL))
    with pytest.raises(ValueError, match="another kind"):
        stored.append(approximate(block(), "channel", Settings(2, rank=1, **SMALL)))


def test_equal_numbers_are_not_marked_twice():
    x = torch.ones(1, 2, 16, 8)
    for per in ("channel", "token"):
        stored = approximate(x, per, Settings(2, outliers=1.0, rank=1, **SMALL))
        assert all(len(set(row)) == len(row) for row in stored.terms["at"].flatten(0, -2).tolist())
        torch.testing.assert_close(stored.dequantise(), x)


def test_positions_take_16_bits_up_to_65536_tokens():
    x = block(n=40_000, d=8, planted=3, b=1, h=1)
    stored = approximate(x, "channel", Settings(8, outliers=0.001, **SMALL))
    assert stored.terms["at"].dtype == torch.int16
    k = int(0.0005 * 40_000)
    largest = x[0, 0].T.argsort(-1)[:, -k:]
    got = stored.dequantise()[0, 0].T.gather(1, largest)
    torch.testing.assert_close(got, x[0, 0].T.gather(1, largest), atol=1e-6, rtol=1e-6)
    assert math.isclose(stored.terms.nbytes, 8 * 2 * k * (4 + 2))

"""Codes: what they weigh, and a file that is read back as it was or not at all."""

import math
import random

import pytest
import torch

from laconic.codec.codes import Codes
from laconic.errors import BudgetError, CodesError


def numbers(n: int = 20, alphabet: int = 1000) -> Codes:
    values = torch.randint(alphabet, (n,), generator=torch.Generator().manual_seed(n))
    return Codes("some_codec", "ab" * 32, (32, 48, 3), values, alphabet)


def vectors() -> Codes:
    return Codes("some_codec", "ab" * 32, (16,), torch.randn(5, 3))


@pytest.mark.parametrize(("n", "alphabet"), [(1, 2), (8, 2), (9, 2), (64, 4096), (7, 1000), (3, 1)])
def test_bytes_are_those_of_information_theory(n, alphabet):
    codes = Codes("c", "d", (1,), torch.zeros(n, dtype=torch.long), alphabet)
    assert codes.bits == pytest.approx(n * math.log2(alphabet))
    assert codes.bytes == math.ceil(n * math.log2(alphabet) / 8)


def test_vectors_weigh_their_numbers():
    assert vectors().bytes == 5 * 3 * 4


@pytest.mark.parametrize("codes", [numbers(), numbers(1, 1), vectors()])
def test_what_is_saved_is_loaded(tmp_path, codes):
    codes.save(tmp_path / "x.codes")
    again = Codes.load(tmp_path / "x.codes")
    assert torch.equal(again.values, codes.values) and again.values.dtype == codes.values.dtype
    assert (again.codec, again.artifact, again.shape, again.alphabet) == (
        codes.codec, codes.artifact, codes.shape, codes.alphabet
    )  # fmt: skip


def test_the_first_of_them():
    codes = numbers(20)
    assert torch.equal(codes.first(5).values, codes.values[:5]) and len(codes.first(20)) == 20
    for wrong in (0, 21, -1):
        with pytest.raises(BudgetError, match="these codes have 20; ask for 1 to 20"):
            codes.first(wrong)


@pytest.mark.parametrize(
    ("values", "alphabet"),
    [
        (torch.tensor([3, 10]), 10),
        (torch.tensor([3, -1]), 10),
        (torch.tensor([0.5]), 10),
        (torch.zeros(0, dtype=torch.long), 10),
        (torch.zeros(2, 2, dtype=torch.long), 10),
        (torch.tensor([3, 4]), None),
        (torch.tensor([[float("nan")]]), None),
        (torch.zeros(0, 4), None),
    ],
)
def test_what_is_no_code_is_refused(values, alphabet):
    with pytest.raises(CodesError, match="the codes of c must be one or more"):
        Codes("c", "d", (1,), values, alphabet)


def test_files_that_are_none(tmp_path):
    with pytest.raises(CodesError, match="does not exist"):
        Codes.load(tmp_path / "none.codes")
    (tmp_path / "text.codes").write_text("not codes")
    with pytest.raises(CodesError, match="truncated or holds no codes"):
        Codes.load(tmp_path / "text.codes")
    from safetensors.torch import save_file

    save_file({"values": torch.zeros(3)}, tmp_path / "other.codes")
    with pytest.raises(CodesError, match="not codes that"):
        Codes.load(tmp_path / "other.codes")
    with pytest.raises(CodesError, match="cannot write"):
        numbers().save(tmp_path / "no folder" / "x.codes")


def test_a_later_format_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("laconic.codec.codes.FORMAT", 2)
    numbers().save(tmp_path / "x.codes")
    monkeypatch.undo()
    with pytest.raises(CodesError, match="has format 2; this version of laconic reads format 1"):
        Codes.load(tmp_path / "x.codes")


def test_2000_mutated_files_are_refused_or_unchanged(tmp_path):
    """Bytes flipped, inserted, removed, and files cut off at every kind of place."""
    path, rng = tmp_path / "x.codes", random.Random(0)
    codes = numbers(24)
    codes.save(path)
    whole, refused = path.read_bytes(), 0
    for number in range(2000):
        data = bytearray(whole)
        kind, at = number % 4, rng.randrange(len(whole))
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.randint(1, 9))
        else:
            del data[at : at + rng.randint(1, 9)]
        path.write_bytes(data)
        try:
            again = Codes.load(path)
        except CodesError:
            refused += 1
        else:
            assert torch.equal(again.values, codes.values) and again.codec == codes.codec and again.shape == codes.shape
    assert refused > 1900

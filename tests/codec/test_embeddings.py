"""Embeddings of times and places against loops."""

import math

import pytest
import torch

from laconic.codec.embeddings import frequencies, sincos


def test_times_have_embeddings_of_their_own():
    made = frequencies(torch.tensor([0.0, 0.5, 1.0]), 256)
    assert made.shape == (3, 256) and made[0].tolist() == [1.0] * 128 + [0.0] * 128
    assert float(made[1, 0]) == pytest.approx(float(torch.tensor(500.0).cos()))


def test_positions_are_sines_of_column_and_line():
    made = sincos(16, 4)
    assert made.shape == (16, 16)
    for token in (0, 6, 15):
        y, x = divmod(token, 4)
        rates = [10_000 ** (-i / 4) for i in range(4)]
        slow = [f(p * r) for p, f in ((x, math.sin), (x, math.cos), (y, math.sin), (y, math.cos)) for r in rates]
        assert made[token].tolist() == pytest.approx(slow, abs=1e-5)

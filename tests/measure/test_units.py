"""Figures as people read them."""

import pytest

from laconic.measure.units import age, flops, seconds, size


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 B"), (1023, "1,023 B"), (1536, "1.5 KiB"), (2**30, "1.0 GiB"), (2**50, "1,024.0 TiB")]
)
def test_bytes(n, text):
    assert size(n) == text


@pytest.mark.parametrize(("s", "text"), [(0.00125, "1.2 ms"), (0.95, "950.0 ms"), (1, "1.00 s"), (9.5, "9.50 s")])
def test_seconds(s, text):
    assert seconds(s) == text


@pytest.mark.parametrize(("n", "text"), [(7, "7 FLOP"), (1500, "1.50 kFLOP"), (2e12, "2.00 TFLOP"), (3e18, "3.0 EFLOP")])
def test_flops(n, text):
    assert flops(n) == text


@pytest.mark.parametrize(
    ("s", "text"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 days"), (1e6, "12 days")]
)
def test_age(s, text):
    assert age(s) == text

"""Other sampling rates: what can be heard stays as it is, what cannot be said at the new rate is gone."""

import numpy as np
import pytest
from helpers.sound_files import tone

from laconic.media.resample import resampled

scipy_signal = pytest.importorskip("scipy.signal")


def level(x):
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 24_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("hertz", [100.0, 1000.0, 3000.0])
def test_a_tone_is_the_same_tone(rate, hertz):
    ours = resampled(tone(0.5, rate, hertz), rate, 16_000)
    exact = tone(0.5, 16_000, hertz)
    assert abs(len(ours) - len(exact)) <= 1
    inside = slice(400, 7_600)  # the first and last samples have no neighbours to be told by
    assert np.abs(ours[inside] - exact[inside]).max() < 5e-4


@pytest.mark.parametrize("hertz", [8_600.0, 12_000.0, 20_000.0])
def test_what_would_fold_back_is_gone(hertz):
    loud = tone(0.5, 48_000, hertz)
    assert level(resampled(loud, 48_000, 16_000)[400:-400]) < 1e-3 * level(loud)


def test_it_agrees_with_scipy_where_both_have_the_same_band():
    x = np.random.default_rng(0).standard_normal(44_100).astype(np.float32)
    slow = scipy_signal.sosfiltfilt(scipy_signal.butter(10, 3_000, fs=44_100, output="sos"), x).astype(np.float32)
    ours, theirs = resampled(slow, 44_100, 16_000), scipy_signal.resample_poly(slow, 160, 441)
    assert len(ours) == len(theirs)
    assert np.abs(ours - theirs)[500:-500].max() < 5e-3 * np.abs(theirs).max()


@pytest.mark.parametrize("samples", [1, 2, 7, 160, 441, 1_000])
@pytest.mark.parametrize(("rate", "wanted"), [(44_100, 16_000), (8_000, 16_000), (16_001, 16_000), (96_000, 16_000)])
def test_lengths(samples, rate, wanted):
    ours = resampled(np.ones(samples, np.float32), rate, wanted)
    assert len(ours) == -(-samples * wanted // rate)
    assert np.isfinite(ours).all()


def test_equal_rates_change_nothing():
    x = tone()
    assert resampled(x, 16_000, 16_000) is x


def test_every_output_is_the_sum_of_the_definition():
    """y[k] = sum_j h[k M - j L] x[j], term by term."""
    from laconic.media.resample import CROSSINGS, ROLLOFF, _filter

    x = np.random.default_rng(1).standard_normal(60).astype(np.float32)
    up, down = 2, 3
    half = CROSSINGS * down
    h = _filter(up, half, ROLLOFF / down)
    slow = [
        sum(h[k * down - j * up + half] * x[j] for j in range(60) if -half <= k * down - j * up <= half) for k in range(40)
    ]
    assert np.allclose(resampled(x, 3, 2), slow, atol=1e-5)

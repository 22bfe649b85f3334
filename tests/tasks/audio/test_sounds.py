"""Waveforms: what is heard where the description says so, at its frequencies, and silence elsewhere."""

import math
import random

import numpy as np
import pytest

from laconic.tasks.audio.sounds import (
    BEEPS,
    DIGITS,
    GLIDES,
    LONGEST,
    RATE,
    SOUNDS,
    Clip,
    Event,
    Voice,
    draw,
    heard,
    render,
)


def alone(name: str, seconds: float = 0.3, tract: float = 1.0, tune: float = 1.0) -> np.ndarray:
    """One event in a quiet clip of a second, from 0.4 s on."""
    event = Event(name, 0.4, seconds, 1.0, Voice(120.0, tract), tune)
    return render(Clip(1.0, (event,), 1e-4, 5))


def peak(wave: np.ndarray, start: float, end: float, above: float = 0.0, below: float = 8000.0) -> float:
    """Strongest frequency of a stretch inside a band, Hz."""
    part = wave[round(start * RATE) : round(end * RATE)]
    power = abs(np.fft.rfft(part * np.hanning(len(part)), 1 << 14)) ** 2
    frequency = np.fft.rfftfreq(1 << 14, 1 / RATE)
    power[(frequency < above) | (frequency > below)] = 0
    return float(frequency[power.argmax()])


def test_a_clip_follows_from_its_seed_and_fits_its_window():
    for seed in range(60):
        clip = draw(random.Random(seed))
        assert clip == draw(random.Random(seed))
        wave = render(clip)
        assert np.array_equal(wave, render(clip)) and wave.dtype == np.float32
        assert len(wave) == round(clip.seconds * RATE) and clip.seconds <= LONGEST and abs(wave).max() <= 1
        pauses = [b.start - a.end for a, b in zip(clip.events, clip.events[1:], strict=False)]
        assert min(pauses, default=1.0) >= 0.1 and clip.events[-1].end < clip.seconds
        assert clip.digits == "".join(event.name for event in clip.events if event.name.isdigit())
    assert draw(random.Random(0), 2.0).seconds <= 2.0


def test_clips_differ_in_digits_voices_and_length():
    clips = [draw(random.Random(seed)) for seed in range(300)]
    names = {event.name for clip in clips for event in clip.events}
    assert names == {*DIGITS, *SOUNDS}
    assert {len({event.voice for event in clip.events}) for clip in clips} == {1, 2}
    assert min(clip.seconds for clip in clips) < 2 and max(clip.seconds for clip in clips) > 7


@pytest.mark.parametrize("name", [*DIGITS, *SOUNDS])
def test_an_event_is_loud_inside_its_time_and_nowhere_else(name):
    wave = alone(name)
    inside = np.sqrt((wave[round(0.4 * RATE) : round(0.7 * RATE)] ** 2).mean())
    outside = np.concatenate([wave[: round(0.4 * RATE)], wave[round(0.7 * RATE) + 1 :]])
    assert inside > 0.05 and abs(outside).max() < 1e-3


@pytest.mark.parametrize("name", BEEPS)
def test_a_beep_is_its_frequency(name):
    assert peak(alone(name, tune=1.05), 0.4, 0.7) == pytest.approx(1.05 * BEEPS[name], rel=0.01)


def test_chirps_rise_and_fall():
    for name, rises in (("rising chirp", True), ("falling chirp", False)):
        wave = alone(name)
        early, late = peak(wave, 0.41, 0.48), peak(wave, 0.62, 0.69)
        assert (late > 2 * early) if rises else (early > 2 * late)


@pytest.mark.parametrize("digit", GLIDES)
def test_formants_of_a_digit_go_from_one_vowel_to_the_other(digit):
    """Each lies within a harmonic of the pitch of where it should be, scaled by the length of the vocal tract."""
    wave, tract = alone(digit, 0.4, tract=1.1), 1.1
    (low, high), (low_end, high_end) = GLIDES[digit]
    start = 0.5 if digit == "0" else 0.41  # after its hiss
    for (begin, end), (first, second) in {
        (start, start + 0.05): (low, high),
        (0.74, 0.79): (low_end, high_end),
    }.items():
        split = tract * math.sqrt(first * second)
        assert peak(wave, begin, end, 150, split) == pytest.approx(tract * first, abs=150)
        assert peak(wave, begin, end, split, 4000) == pytest.approx(tract * second, abs=200)


def test_only_zero_begins_with_a_hiss():
    def high(name: str) -> float:
        part = alone(name)[round(0.41 * RATE) : round(0.47 * RATE)]
        power = abs(np.fft.rfft(part)) ** 2
        return power[len(power) * 5 // 8 :].sum() / power.sum()  # above 5 kHz

    assert high("0") > 0.4 and max(high(digit) for digit in DIGITS[1:]) < 0.05
    assert GLIDES["0"] == GLIDES["5"] and len({GLIDES[digit] for digit in DIGITS[1:]}) == 9


def test_what_is_heard_in_the_middle_of_a_stretch():
    clip = draw(random.Random(4))
    found = heard(clip, 0.08, 100)
    for i, event in enumerate(found):
        middle = (i + 0.5) * 0.08
        there = [e for e in clip.events if e.start <= middle < e.end]
        assert ([event] if event else []) == there


def test_an_unknown_sound_is_refused():
    with pytest.raises(ValueError, match=r"'gong' is unknown; choose a digit or one of high beep"):
        alone("gong")

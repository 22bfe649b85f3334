"""Procedural sound: a description drawn from a random generator, its waveform, and what is heard at each moment.

A clip has spoken digits, beeps and chirps with pauses between them, over noise. A digit is two formants that are excited
at the pitch of a voice: nine digits are the nine glides between three vowels, the tenth is a vowel after a hiss. Voices
differ in pitch and in the length of the vocal tract, which scales both formants. Everything follows from the description:
no recording, the same samples everywhere. Times are seconds, frequencies Hz.
"""

import math
import random
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
"""Samples per second."""
LONGEST = 8.0
DIGITS = tuple("0123456789")
BEEPS = {"high beep": 2000.0, "low beep": 500.0}
CHIRPS = {"rising chirp": (500.0, 2600.0), "falling chirp": (2600.0, 500.0)}
SOUNDS = (*BEEPS, *CHIRPS)
_U, _A, _I = (320.0, 800.0), (750.0, 1250.0), (300.0, 2200.0)
GLIDES = {
    "0": (_A, _A),
    **{str(1 + 3 * i + j): (a, b) for i, a in enumerate((_U, _A, _I)) for j, b in enumerate((_U, _A, _I))},
}
"""First and second formant at the start and the end of each digit; 0 is told from 5 by the hiss before it."""
HISS = 0.09
"""Length of the hiss that 0 begins with."""
RAMP = 0.012
MIN_PAUSE, MAX_PAUSE = 0.1, 0.7
Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Voice:
    """``pitch`` of a speaker, and the factor ``tract`` on the formants."""

    pitch: float
    tract: float


@dataclass(frozen=True)
class Event:
    """A sound from ``start`` on: ``name`` is a digit or one of `SOUNDS`, ``tune`` a factor on a tone's frequencies."""

    name: str
    start: float
    seconds: float
    level: float
    voice: Voice
    tune: float

    @property
    def end(self) -> float:
        return self.start + self.seconds

    @property
    def spoken(self) -> bool:
        return self.name in DIGITS


@dataclass(frozen=True)
class Clip:
    """Everything that determines a waveform; ``noise`` is the level of the ground, ``texture`` its seed."""

    seconds: float
    events: tuple[Event, ...]
    noise: float
    texture: int

    @cached_property
    def digits(self) -> str:
        """The digits that are spoken, in order."""
        return "".join(event.name for event in self.events if event.spoken)


def draw(rng: random.Random, longest: float = LONGEST) -> Clip:
    """A random clip of two to eleven events and at most ``longest`` seconds, spoken by one voice or two."""
    voices = [Voice(rng.uniform(90, 240), rng.uniform(0.9, 1.12)) for _ in range(rng.choice([1, 1, 2]))]
    wanted, spoken = rng.randint(2, 11), rng.choice([0.5, 0.65, 0.8])
    few = rng.sample(DIGITS, rng.choice([4, 10, 10]))  # few digits repeat
    events: list[Event] = []
    now = rng.uniform(0.05, 0.5)
    while len(events) < wanted:
        name = rng.choice(few) if rng.random() < spoken else rng.choice(SOUNDS)
        seconds = rng.uniform(0.12, 0.24) if name in BEEPS else rng.uniform(0.18, 0.32)
        if now + seconds + 0.1 > longest:
            break
        events.append(Event(name, now, seconds, rng.uniform(0.35, 1), rng.choice(voices), rng.uniform(0.92, 1.08)))
        now += seconds + rng.uniform(MIN_PAUSE, MAX_PAUSE)
    end = min(longest, events[-1].end + rng.uniform(0.1, 0.6))
    return Clip(round(end * RATE) / RATE, tuple(events), 10 ** rng.uniform(-2.6, -1.5), rng.randrange(2**31))


def render(clip: Clip) -> Samples:
    """The waveform [N] of ``clip`` in -1 .. 1 at `RATE`.

    Raises ``ValueError`` for an event that is neither a digit nor one of `SOUNDS`.
    """
    rng = np.random.default_rng(clip.texture)
    wave = rng.standard_normal(round(clip.seconds * RATE), dtype=np.float32) * np.float32(0.5 * clip.noise)
    for event in clip.events:
        sound = 0.45 * event.level * _sound(event, rng)
        first = round(event.start * RATE)
        part = wave[first : first + len(sound)]
        part += sound[: len(part)]
    return np.clip(wave, -1, 1)


def _sound(event: Event, rng: np.random.Generator) -> Samples:
    """``event`` alone at full level."""
    count = round(event.seconds * RATE)
    along = np.linspace(0, 1, count, dtype=np.float32)
    edge = np.clip(np.minimum(along, 1 - along) * np.float32(event.seconds / RAMP), 0, 1)
    if event.name in BEEPS:
        return edge * _tone(np.full(count, BEEPS[event.name] * event.tune))
    if event.name in CHIRPS:
        low, high = CHIRPS[event.name]
        return edge * _tone(event.tune * low * (high / low) ** along)
    if event.name not in GLIDES:
        raise ValueError(f"event {event.name!r} is unknown; choose a digit or one of {', '.join(SOUNDS)}")
    start, end = GLIDES[event.name]
    bend = 0.5 - 0.5 * np.cos(math.pi * along)  # the middle of the glide is its fastest part
    formants = [_tone(event.voice.tract * a * (b / a) ** bend) for a, b in zip(start, end, strict=True)]
    pitch = event.voice.pitch * (1.06 - 0.12 * along)
    pulses = np.square(0.5 + 0.5 * _tone(pitch))
    spoken = edge * pulses * (formants[0] + 0.7 * formants[1])
    if event.name == "0":
        head = round(HISS * RATE)
        hiss = np.diff(rng.standard_normal(head + 1, dtype=np.float32)) * np.float32(0.5)  # more of it at high frequencies
        spoken[:head] = edge[:head] * hiss
    return spoken


def _tone(frequency: NDArray[np.floating[Any]]) -> Samples:
    """A sine of the given frequency at each sample."""
    return np.sin(np.cumsum(frequency, dtype=np.float64) * (2 * math.pi / RATE)).astype(np.float32)


def heard(clip: Clip, step: float, count: int) -> list[Event | None]:
    """What is heard in the middle of each of ``count`` stretches of ``step`` seconds."""
    found: list[Event | None] = [None] * count
    for event in clip.events:
        for i in range(max(0, math.ceil(event.start / step - 0.5)), min(count, math.ceil(event.end / step - 0.5))):
            found[i] = event
    return found

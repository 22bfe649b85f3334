"""Sound files made here: tones, written by hand or by libsndfile, and what a WAV header is made of."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np

FORMATS = (
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("WAV", "ULAW"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("MP3", "MPEG_LAYER_III"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("W64", "PCM_16"),
)


def tone(seconds: float = 1.0, rate: int = 16_000, hertz: float = 440.0, level: float = 0.5) -> np.ndarray:
    """A sine, float32 [n]."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def written(samples: np.ndarray, rate: int = 16_000, format: str = "WAV", subtype: str | None = None) -> bytes:
    """A file of samples [n] or [n, channels], as libsndfile writes it."""
    import soundfile

    file = BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


def wav(samples: np.ndarray, rate: int = 16_000, a_second: int | None = None, length: int | None = None) -> bytes:
    """A 16-bit mono WAV file whose header may lie about the bytes a second and the length of the data."""
    data = (samples * 32767).astype("<i2").tobytes()
    header = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate if a_second is None else a_second, 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + header
    body += b"data" + struct.pack("<I", len(data) if length is None else length) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body

"""One sound file, read strictly and within limits: WAV, FLAC, Ogg, MP3, AIFF and others, as mono at 16 kHz.

What is converted, and how: channels are averaged. Rates of 4 to 192 kHz become 16 kHz by a polyphase filter (`resample`).
Samples beyond full scale, which float files may hold, are cut off at it. What a user should know about the result (clipping,
silence, channels that cancel each other out) is in `Sound.notes`. A WAV header that says two different rates is refused; a
rate that is wrong in both places cannot be told from a voice that is high or low.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.errors import MediaError
from laconic.media.kinds import HEAD, kind_of
from laconic.media.resample import resampled
from laconic.media.wav import check_wav

RATE = 16_000
"""Samples a second that speech models hear."""
RATES = (4_000, 192_000)
"""Sampling rates that are read."""
SHORTEST, LONGEST = 0.1, 3600.0
"""Seconds of sound that are read."""
MAX_BYTES = 1024 * 2**20
MAX_CHANNELS = 32
BLOCK = 1 << 18
"""Values that are decoded at a time."""
LOUD, CLIPPED = 0.999, 0.001
"""A sample is at full scale above the first; a sound clips where a larger share of its samples than the second is."""
SILENT = 1e-4
"""Peak below which a sound is silence: -80 dB of full scale."""
CANCELLED = 0.1
"""A mix whose level is below this share of its channels' has lost them to opposite phases."""


@dataclass(frozen=True)
class Sound:
    """A sound as models hear it.

    Attributes:
        samples: mono at `RATE`, within -1 and 1, float32 [n].
        source_rate, channels: of the file. `notes`: what a user should know, one sentence each.
    """

    samples: NDArray[np.float32]
    source_rate: int
    channels: int
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


def load_sound(path: str | os.PathLike[str]) -> Sound:
    """The sound of a file.

    Raises:
        MediaError: the file cannot be read, is no complete sound of a known format, or is too short or too long.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise MediaError(f"{path} is a folder, not a sound; give a WAV, FLAC, Ogg or MP3 file.")
        if path.exists() and not path.is_file():
            raise MediaError(f"{path} is not a regular file; give a WAV, FLAC, Ogg or MP3 file.")
        if path.stat().st_size > MAX_BYTES:
            raise MediaError(f"{path} has {path.stat().st_size:,} bytes; sound files of at most {MAX_BYTES:,} are read.")
        data = path.read_bytes()
    except OSError as error:
        raise MediaError(f"cannot read {path}: {error.strerror or error}.") from error
    return sound_of(data, str(path))


def sound_of(data: bytes, name: str = "the sound") -> Sound:
    """The sound in the bytes of a file that messages call `name`; see `load_sound`."""
    if not data:
        raise MediaError(f"{name} is empty.")
    check_wav(data, name)
    values, rate = _decoded(data, name)
    if not np.isfinite(values).all():
        raise MediaError(f"{name} holds samples that are no numbers (nan or infinite). Export it again.")
    channels = values.shape[1]
    mono = values.mean(1)
    notes = _notes(values, mono)
    samples = resampled(mono.clip(-1, 1), rate, RATE).clip(-1, 1)
    return Sound(samples, rate, channels, notes)


def _decoded(data: bytes, name: str) -> tuple[NDArray[np.float32], int]:
    """All samples [n, channels], and their rate."""
    soundfile = _reader(name)
    opened = False
    try:
        with soundfile.SoundFile(_Bytes(data)) as file:
            opened = True
            _check(file.frames, file.samplerate, file.channels, name)
            most = int(LONGEST * file.samplerate)
            blocks, left = [], most + 1
            while left > 0:
                block = file.read(min(left, max(1, BLOCK // file.channels)), dtype="float32", always_2d=True)
                if not len(block):
                    break
                blocks.append(block)
                left -= len(block)
            announced, rate = file.frames, file.samplerate
    except MediaError:
        raise
    except Exception as error:  # libsndfile's errors, and on hostile bytes others, too
        told = getattr(error, "error_string", None) or str(error)  # libsndfile's own words, without the name of our reader
        said = " ".join(told.split()) or type(error).__name__
        why = f"is broken or cut off: {said} Copy or download it again." if opened else _unknown(data, said)
        raise MediaError(f"{name} {why}") from error
    values = np.concatenate(blocks) if blocks else np.empty((0, 1), np.float32)
    if len(values) < announced:
        raise MediaError(
            f"{name} is broken or cut off: {announced:,} samples are announced, and {len(values):,} could be read. Copy or "
            "download it again."
        )
    _check(len(values), rate, values.shape[1], name)
    return values, rate


class _Bytes(BytesIO):
    """A file whose reader may be sent to a place before its beginning by a broken header: it stays there."""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except ValueError:
            return super().seek(0)


def _reader(name: str) -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package is there, its libsndfile is not
        raise MediaError(
            f"{name}: sound files are read with soundfile, which is missing; pip install 'laconic-transformers[audio]'."
        ) from error
    return soundfile


def _check(frames: int, rate: int, channels: int, name: str) -> None:
    """Refuse sizes out of range, before anything is decoded."""
    if not RATES[0] <= rate <= RATES[1]:
        raise MediaError(f"{name} has {rate:,} samples a second; {RATES[0]:,} to {RATES[1]:,} are read. Resample it.")
    if not 1 <= channels <= MAX_CHANNELS:
        raise MediaError(f"{name} has {channels} channels; at most {MAX_CHANNELS} are read. Mix it down.")
    seconds = frames / rate
    if seconds < SHORTEST:
        raise MediaError(f"{name} is {seconds:.3f} s long; at least {SHORTEST} s are needed to hear anything.")
    if seconds > LONGEST:
        raise MediaError(
            f"{name} is {seconds / 3600:.1f} h long; at most {LONGEST / 3600:.0f} h is read at a time. Cut it into pieces."
        )


def _unknown(data: bytes, said: str) -> str:
    """Why a file that libsndfile does not open is refused, and what to do."""
    kind = kind_of(data[:HEAD])
    if kind is not None and kind.name != "an Ogg file":
        return f"is {kind.name}, not a sound file; save its sound as WAV or FLAC."
    return f"is not a sound file that can be read: {said} Give WAV, FLAC, Ogg or MP3."


def _notes(values: NDArray[np.float32], mono: NDArray[np.float32]) -> tuple[str, ...]:
    """What is worth saying about samples [n, channels] and their mix [n]."""
    notes = []
    peak, full = float(np.abs(values).max()), float((np.abs(values) >= LOUD).mean())
    if peak < SILENT:
        notes.append("it is silent: no sample is louder than -80 dB of full scale")
    elif full > CLIPPED:
        notes.append(f"it clips: {100 * full:.1f} % of its samples are at full scale or beyond")
    level, mixed = (float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) for x in (values, mono))
    if peak >= SILENT and mixed < CANCELLED * level:
        notes.append("its channels cancel each other out when they are averaged; give one of them alone")
    return tuple(notes)

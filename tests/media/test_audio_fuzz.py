"""Mutated sound files: a sound within the limits or a clear error, never anything else."""

import random

import numpy as np
import pytest
from helpers.mutations import mutated
from helpers.sound_files import FORMATS, tone, written

from laconic.errors import MediaError
from laconic.media.audio import sound_of

pytest.importorskip("soundfile")
ROUNDS = 200


@pytest.mark.filterwarnings("error")  # nothing is printed from within a decoder either
def test_mutated_files():
    """Over 2,000 files of all kinds."""
    files = [written(tone(0.3), format=format, subtype=subtype) for format, subtype in FORMATS]
    rng = random.Random(0)
    read = refused = 0
    for number, data in enumerate(files):
        for _ in range(ROUNDS):
            try:
                sound = sound_of(mutated(data, rng.choice(files), rng), "mutated")
                assert sound.samples.dtype == np.float32 and np.isfinite(sound.samples).all(), FORMATS[number]
                assert np.abs(sound.samples).max() <= 1
                read += 1
            except MediaError as error:
                assert str(error).startswith("mutated") and "\n" not in str(error), FORMATS[number]
                refused += 1
    assert read + refused == ROUNDS * len(FORMATS) >= 2_000
    assert read > 100 and refused > 100

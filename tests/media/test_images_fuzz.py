"""Mutated image files: an image within the limits or a clear error, never anything else."""

import random
import warnings

from helpers.image_files import corpus
from helpers.mutations import mutated

from laconic.errors import MediaError
from laconic.media.images import animation, durations, load_image

ROUNDS = 120
LIMIT = 250_000


def test_mutated_files(tmp_path):
    """Over 2,500 files of all kinds, each read as an image and as an animation."""
    kinds = corpus()
    files, rng = list(kinds.values()), random.Random(0)
    path = tmp_path / "mutated"
    tried = read = refused = 0
    for name, data in kinds.items():
        for number in range(ROUNDS):
            path.write_bytes(mutated(data, rng.choice(files), rng))
            tried += 1
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                try:
                    image = load_image(path, max_pixels=LIMIT)
                    assert image.mode == "RGB" and 0 < image.width * image.height <= LIMIT, (name, number)
                    count = len(durations(path, max_pixels=LIMIT))
                    last = list(animation(path, [count - 1], max_pixels=LIMIT))
                    assert last[0].mode == "RGB", (name, number)
                    read += 1
                except MediaError as error:
                    assert str(path) in str(error) and "\n" not in str(error), (name, number)
                    refused += 1
    assert tried == read + refused >= 2000
    assert read > 100 and refused > 500

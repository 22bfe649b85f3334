"""Mutated image files: an image within the limits or a clear error, never anything else."""

import random
import warnings

from helpers.image_files import corpus

from laconic.errors import MediaError
from laconic.media.images import animation, durations, load_image

ROUNDS = 120
LIMIT = 250_000
WORDS = (b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\0", b"IDAT", b"\xff\xd8", b"\xff\xc0", b"ANMF")


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Bits flipped, bytes overwritten, ranges cut out, doubled, or taken from another file, the end cut off."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        reach = rng.choice((64, len(found)))  # headers are hit as often as pixels
        at = rng.randrange(max(1, min(len(found), reach)))
        length = rng.randrange(1, 40)
        match rng.randrange(6):
            case 0 if found:
                found[at % len(found)] ^= 1 << rng.randrange(8)
            case 1:
                word = rng.choice(WORDS)
                found[at : at + len(word)] = word
            case 2:
                del found[at : at + length]
            case 3:
                found[at:at] = found[at : at + length]
            case 4:
                start = rng.randrange(len(other))
                found[at : at + length] = other[start : start + length]
            case _:
                if rng.random() < 0.3:
                    del found[at:]
    return bytes(found)


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

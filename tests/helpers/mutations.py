"""Mutations of files: bits, bytes and ranges."""

import random

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

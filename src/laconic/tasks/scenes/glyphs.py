"""A bitmap font of 5 x 7 pixels for digits and capitals, so that a rendered word looks the same on every machine."""

import numpy as np
from numpy.typing import NDArray

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
WIDTH, HEIGHT = 5, 7

# Seven rows of five bits for each character, in the order of ALPHABET; the highest bit is the leftmost pixel.
_ROWS = """
0E 11 11 1F 11 11 11  1E 11 11 1E 11 11 1E  0E 11 10 10 10 11 0E  1E 11 11 11 11 11 1E  1F 10 10 1E 10 10 1F
1F 10 10 1E 10 10 10  0F 10 10 17 11 11 0F  11 11 11 1F 11 11 11  1F 04 04 04 04 04 1F  07 02 02 02 02 12 0C
11 12 14 18 14 12 11  10 10 10 10 10 10 1F  11 1B 15 15 11 11 11  11 19 19 15 13 13 11  0E 11 11 11 11 11 0E
1E 11 11 1E 10 10 10  0E 11 11 11 15 12 0D  1E 11 11 1E 14 12 11  0F 10 10 0E 01 01 1E  1F 04 04 04 04 04 04
11 11 11 11 11 11 0E  11 11 11 11 0A 0A 04  11 11 11 15 15 1B 11  11 0A 0A 04 0A 0A 11  11 11 0A 04 04 04 04
1F 01 02 04 08 10 1F
0E 13 13 15 19 19 0E  04 0C 14 04 04 04 0E  0E 11 01 06 08 10 1F  1E 01 01 0E 01 01 1E  02 06 0A 12 1F 02 02
1F 10 1E 01 01 01 1E  06 08 10 1E 11 11 0E  1F 01 02 02 04 04 04  0E 11 11 0E 11 11 0E  0E 11 11 0F 01 02 0C
"""
_BITS = np.array([int(row, 16) for row in _ROWS.split()], dtype=np.uint8).reshape(len(ALPHABET), HEIGHT)
_FONT: NDArray[np.bool_] = (_BITS[:, :, None] >> np.arange(WIDTH - 1, -1, -1) & 1).astype(bool)


def glyph(character: str, scale: int = 1) -> NDArray[np.bool_]:
    """Ink of ``character`` [7 * scale, 5 * scale]; raises ``ValueError`` for what the font does not hold."""
    at = ALPHABET.find(character)
    if len(character) != 1 or at < 0:
        raise ValueError(f"character={character!r} is not in the font; it holds single capitals and digits: {ALPHABET}")
    return _FONT[at].repeat(scale, 0).repeat(scale, 1)

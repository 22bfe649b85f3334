"""A log-mel spectrogram as an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from laconic.report.ramp import RAMP


def spectrogram_image(features: NDArray[np.float32], low: float, high: float, tall: int = 96) -> NDArray[np.uint8]:
    """RGB [h, columns, 3] of ``features`` [mels, columns], low frequencies at the bottom.

    Args:
        low, high: values that the first and the last colour stand for.
        tall: the least height in pixels; every mel is repeated until it is reached.
    """
    level = np.clip((features[::-1] - low) / max(high - low, 1e-6), 0, 1) * (len(RAMP) - 1)
    image = np.stack([np.interp(level, np.arange(len(RAMP)), RAMP[:, k]) for k in range(3)], -1)
    return np.repeat(image.round().astype(np.uint8), max(1, -(-tall // len(features))), 0)

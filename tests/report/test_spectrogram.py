import numpy as np

from laconic.report.ramp import RAMP
from laconic.report.spectrogram import spectrogram_image


def test_low_frequencies_are_at_the_bottom_and_values_follow_the_colours():
    features = np.array([[0.0, 1.0, 0.5], [9.0, -9.0, 0.0]], np.float32)
    image = spectrogram_image(features, 0.0, 1.0, tall=6)
    assert image.shape == (6, 3, 3) and image.dtype == np.uint8
    bottom, top = image[3:], image[:3]
    assert (bottom == bottom[0]).all() and (top == top[0]).all(), "each mel is repeated"
    assert bottom[0].tolist() == RAMP[[0, -1, 4]].tolist()
    assert top[0].tolist() == RAMP[[-1, 0, 0]].tolist(), "what lies outside has the colour of the end"


def test_digital_silence_is_drawn():
    assert (spectrogram_image(np.full((4, 5), -1.0, np.float32), -1.0, -1.0) == RAMP[0]).all()

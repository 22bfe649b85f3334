"""Images as tensors and back, and their distance."""

import numpy as np
import pytest
import torch
from PIL import Image

from laconic.codec.images import check_image, pixels, psnr, shown
from laconic.errors import MediaError


def test_every_byte_comes_back():
    image = Image.fromarray(np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3))
    x = pixels([image])
    assert x.shape == (1, 3, 16, 16) and x.min() == -1 and x.max() == 1
    assert np.array_equal(np.asarray(shown(x)[0]), np.asarray(image))
    assert torch.equal(pixels(np.asarray(image)[None]), x)


def test_psnr_is_that_of_eight_bits():
    a = torch.zeros(2, 3, 4, 4)
    b = a.clone()
    b[1] += 10 / 127.5
    assert psnr(b, a)[0] == float("inf")
    assert float(psnr(b, a)[1]) == pytest.approx(20 * np.log10(255 / 10), abs=1e-4)
    assert float(psnr(a * 0 - 5, a)[0]) == pytest.approx(float(psnr(a * 0 - 1, a)[0]))  # clipped as it is shown


def test_what_is_not_of_the_codecs_size_is_refused():
    assert check_image("c", Image.new("L", (4, 6)), (4, 6)).mode == "RGB"
    with pytest.raises(MediaError, match="the image is 33 x 47 pixels and this codec reads 32 x 32; resize"):
        check_image("c", Image.new("RGB", (33, 47)), (32, 32))
    with pytest.raises(MediaError, match="reads a Pillow image, not ndarray"):
        check_image("c", np.zeros((32, 32, 3)), (32, 32))

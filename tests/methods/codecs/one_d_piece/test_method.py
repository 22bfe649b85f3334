"""One-D-Piece as a codec: an image goes in, any prefix of its codes comes out as an image."""

import numpy as np
import pytest
import torch
from helpers.codec_tools import tiny_codec, tiny_net
from PIL import Image

from laconic.codec.codes import Codes
from laconic.codec.images import pixels, shown
from laconic.tasks.scenes.small import small_scenes

IMAGE = Image.fromarray(small_scenes(1_000_000, 1, 8)[0])


@torch.no_grad()
def test_codes_and_images_are_those_of_the_network(tmp_path):
    codec, net = tiny_codec(tmp_path), tiny_net().eval()
    codes = codec.encode(IMAGE)
    assert codes.codec == "one_d_piece" and codes.shape == (8, 8, 3) and codes.alphabet == 64
    assert torch.equal(codes.values, net.quantise(pixels([IMAGE])).indices[0])
    for k in range(1, 5):
        assert torch.equal(codec.encode(IMAGE, k).values, codes.values[:k])
        wanted = shown(net(pixels([IMAGE]), k)[0])[0]
        assert np.array_equal(np.asarray(codec.decode(codes.first(k))), np.asarray(wanted))


def test_codes_decode_from_their_file(tmp_path):
    codec = tiny_codec(tmp_path)
    codes = codec.encode(IMAGE, 3)
    codes.save(tmp_path / "x.codes")
    again = codec.decode(Codes.load(tmp_path / "x.codes"))
    assert np.array_equal(np.asarray(again), np.asarray(codec.decode(codes)))
    assert codes.bytes == 3  # three of six bits


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_images_of_any_mode_are_read_as_rgb(tmp_path, mode):
    assert len(tiny_codec(tmp_path).encode(IMAGE.convert(mode))) == 4

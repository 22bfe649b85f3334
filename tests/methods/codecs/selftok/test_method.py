"""Selftok as a codec: an image becomes codes, coarse ones first, and an image again."""

import numpy as np
import pytest
import torch
from helpers.selftok_tools import selftok_artifact, tiny_selftok
from PIL import Image

import laconic
from laconic.codec.codes import Codes
from laconic.codec.images import pixels, shown
from laconic.errors import ArtifactError, BudgetError, CodesError, MediaError, SessionError
from laconic.tasks.scenes.small import small_scenes

IMAGE = Image.fromarray(small_scenes(1_000_000, 1, 8)[0])


@pytest.fixture
def codec(tmp_path):
    return laconic.SelfTok(artifact=selftok_artifact(tmp_path / "s.safetensors"), steps=3)


def same(a, b):
    return np.array_equal(np.asarray(a), np.asarray(b))


@torch.no_grad()
def test_codes_come_coarse_first_and_images_are_those_of_the_network(codec):
    net = tiny_selftok()
    codes, indices = codec.encode(IMAGE), net.quantise(pixels([IMAGE])).indices[0]
    assert codes.codec == "selftok" and codes.shape == (8, 8, 3) and codes.alphabet == 64 and len(codes) == 4
    assert codes.values.tolist() == indices.flip(0).tolist() and len(set(indices.tolist())) > 1
    for k in range(1, 5):
        assert torch.equal(codec.encode(IMAGE, k).values, codes.values[:k])
        given = torch.arange(4) >= 4 - k
        vectors = net.quantiser.vectors(indices * given)[None]
        wanted = shown(net.sample(vectors, net.noise(1, 0), 3, given))[0]
        assert same(codec.decode(codes.first(k)), wanted)


def test_decoding_follows_the_seed_and_the_codes(codec, tmp_path):
    codes = codec.encode(IMAGE)
    codes.save(tmp_path / "x.codes")
    again = codec.decode(Codes.load(tmp_path / "x.codes"))
    assert same(again, codec.decode(codes)) and codes.bytes == 3
    codec.seed = 1
    assert not same(again, codec.decode(codes))


def test_8_all_tokens_are_rendered_where_there_is_a_renderer_and_a_first_part_is_not(tmp_path):
    path = selftok_artifact(tmp_path / "r.safetensors", renderer=True)
    auto, diffusion = (laconic.SelfTok(artifact=path, steps=2, decoder=d) for d in ("auto", "diffusion"))
    renderer = laconic.SelfTok(artifact=path, decoder="renderer")
    codes = auto.encode(IMAGE)
    assert same(auto.decode(codes), renderer.decode(codes)) and not same(auto.decode(codes), diffusion.decode(codes))
    assert same(auto.decode(codes.first(2)), diffusion.decode(codes.first(2)))
    with pytest.raises(ValueError, match="decoder='renderer' needs all 4 tokens"):
        renderer.decode(codes.first(2))


def test_what_does_not_fit_is_refused(codec, tmp_path, llama):
    codes = codec.encode(IMAGE)
    with pytest.raises(MediaError, match="the image is 9 x 8 pixels and this codec reads 8 x 8"):
        codec.encode(Image.new("RGB", (9, 8)))
    with pytest.raises(BudgetError, match="tokens=5: there are 4"):
        codec.encode(IMAGE, 5)
    with pytest.raises(CodesError, match="were made by one_d_piece, not by selftok"):
        codec.decode(Codes("one_d_piece", codes.artifact, codes.shape, codes.values, 64))
    with pytest.raises(CodesError, match="5 tokens from 64 codes: selftok has at most 4"):
        codec.decode(Codes("selftok", codes.artifact, codes.shape, torch.zeros(5, dtype=torch.long), 64))
    other = laconic.SelfTok(artifact=selftok_artifact(tmp_path / "o.safetensors", seed=1))
    with pytest.raises(CodesError, match="made with other weights"):
        other.decode(codes)
    with pytest.raises(ArtifactError, match="this artifact has none; train one with `laconic fit selftok --set start=FILE`"):
        laconic.SelfTok(artifact=codec.artifact, decoder="renderer").decode(codes)
    with pytest.raises(ValueError, match="decoder='best'"):
        laconic.SelfTok(decoder="best")
    with pytest.raises(ValueError, match="steps=0 must be a whole number of at least 1"):
        laconic.SelfTok(steps=0)
    with pytest.raises(SessionError, match="selftok is a codec"):
        laconic.compress(llama, codec).__enter__()


def test_files_that_were_cut_or_altered_are_refused(codec, tmp_path):
    file = tmp_path / "x.codes"
    codec.encode(IMAGE).save(file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-2])
    with pytest.raises(CodesError, match="truncated"):
        Codes.load(file)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CodesError, match="was altered"):
        Codes.load(file)

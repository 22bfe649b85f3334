"""`laconic encode` and `laconic decode`."""

import numpy as np
import pytest
from helpers.codec_tools import tiny_artifact
from helpers.selftok_tools import selftok_artifact
from PIL import Image

from laconic.codec.codes import Codes
from laconic.fit import Trainer
from laconic.fit.find import find_fit
from laconic.fit.settings import parse
from laconic.tasks.scenes.small import small_scenes


@pytest.fixture
def image(tmp_path):
    Image.fromarray(small_scenes(1_000_000, 1, 8)[0]).save(tmp_path / "in.png")
    return tmp_path / "in.png"


@pytest.fixture
def method(tmp_path):
    return f"one_d_piece:artifact={tiny_artifact(tmp_path / 'tiny.safetensors')}"


def test_an_image_becomes_a_file_of_tokens_and_an_image_again(laconic, tmp_path, image, method):
    file, out = tmp_path / "x.codes", tmp_path / "out.png"
    told = laconic.json("encode", image, "--tokens", 3, "--method", method, "-o", file)
    assert told["tokens"] == 3 and told["bits"] == 18 and told["bytes"] == 3 and told["file_bytes"] == file.stat().st_size
    assert len(Codes.load(file)) == 3
    artifact = tmp_path / "tiny.safetensors"
    back = laconic.json("decode", file, "-o", out, "--artifact", artifact)
    assert back["tokens"] == 3 and np.asarray(Image.open(out)).shape == (8, 8, 3)
    laconic("decode", file, "-o", tmp_path / "one.png", "--tokens", 1, "--artifact", artifact)
    assert not np.array_equal(np.asarray(Image.open(out)), np.asarray(Image.open(tmp_path / "one.png")))


def test_as_few_tokens_as_a_quality_takes(laconic, tmp_path, image, method):
    told = laconic.json("encode", image, "--psnr", 1, "--method", method, "-o", tmp_path / "x.codes")
    assert told["tokens"] == 1 and told["psnr"] >= 1
    said = laconic("encode", image, "--psnr", 90, "--method", method, "-o", tmp_path / "y.codes")
    assert said.exit_code == 0 and "90 dB are not reached with all tokens" in said.stderr


def test_another_size_is_scaled_when_asked(laconic, tmp_path, method):
    Image.new("RGB", (33, 47)).save(tmp_path / "odd.png")
    out = tmp_path / "x.codes"
    line = laconic.bad(2, "encode", tmp_path / "odd.png", "--method", method, "-o", out)
    assert "the image is 33 x 47 pixels and this codec reads 8 x 8" in line and not out.exists()
    assert laconic.json("encode", tmp_path / "odd.png", "--method", method, "--resize", "-o", out)["shape"] == [8, 8, 3]


def test_what_cannot_be_used_is_named(laconic, tmp_path, image, method):
    out = tmp_path / "x.codes"
    assert "there are 4" in laconic.bad(2, "encode", image, "--tokens", 5, "--method", method, "-o", out)
    assert "exclude each other" in laconic.bad(2, "encode", image, "--tokens", 2, "--psnr", 20, "-o", out)
    assert "is no codec" in laconic.bad(2, "encode", image, "--method", "snapkv", "-o", out)
    assert "folder that exists" in laconic.bad(2, "encode", image, "-o", tmp_path / "no" / "x.codes")
    assert "does not exist" in laconic.bad(2, "decode", out, "-o", tmp_path / "y.png")
    laconic("encode", image, "--method", method, "-o", out)
    artifact = tmp_path / "tiny.safetensors"
    assert "made with other weights" in laconic.bad(
        2, "decode", out, "-o", tmp_path / "y.png", "--artifact", tiny_artifact(tmp_path / "other.safetensors", seed=1)
    )
    assert "these codes have 4" in laconic.bad(
        2, "decode", out, "--tokens", 9, "-o", tmp_path / "y.png", "--artifact", artifact
    )
    assert "give a file such as image.png" in laconic.bad(
        2, "decode", out, "-o", tmp_path / "y.nothing", "--artifact", artifact
    )
    out.write_bytes(out.read_bytes()[:-3])
    assert "truncated" in laconic.bad(2, "decode", out, "-o", tmp_path / "y.png")


def test_points_are_encoded_too(laconic, tmp_path):
    fit = parse(find_fit("uni_3dar"), {"steps": "1", "width": "48", "heads": "2", "depth": "2", "batch_size": "2"})
    Trainer(fit, None, None, None, lambda line: None).run().save(tmp_path / "a.safetensors")
    (tmp_path / "m.xyz").write_text("3\n\nC 0 0 0\nC 1.4 0 0\nO 1.9 1.3 0\n")
    method, codes = f"uni_3dar:artifact={tmp_path / 'a.safetensors'}", tmp_path / "m.codes"
    assert "tokens of uni_3dar" in laconic("encode", tmp_path / "m.xyz", "--method", method, "-o", codes).stdout
    laconic("decode", codes, "--artifact", tmp_path / "a.safetensors", "-o", tmp_path / "back.xyz")
    assert (tmp_path / "back.xyz").read_text().startswith("3\n")
    assert "reads no images" in laconic.bad(2, "encode", tmp_path / "m.xyz", "--method", method, "--resize", "-o", codes)


def test_tokens_in_diffusion_order_are_encoded_too(laconic, tmp_path, image):
    artifact = selftok_artifact(tmp_path / "s.safetensors")
    method, file = f"selftok:artifact={artifact},steps=2", tmp_path / "x.codes"
    told = laconic.json("encode", image, "--method", method, "--tokens", 3, "-o", file)
    assert told["tokens"] == 3 and told["codec"] == "selftok"
    laconic("decode", file, "--artifact", artifact, "-o", tmp_path / "out.png")
    assert Image.open(tmp_path / "out.png").size == (8, 8)
    line = laconic.bad(2, "decode", file, "--artifact", artifact, "--tokens", 4, "-o", tmp_path / "y.png")
    assert "these codes have 3" in line

"""`laconic generate`."""

import pytest
from PIL import Image

from laconic.fit import Trainer
from laconic.methods.codecs.e_mmdit.fit import EMMDiTFit


@pytest.fixture(scope="module")
def method(tmp_path_factory):
    path = tmp_path_factory.mktemp("g") / "tiny.safetensors"
    sizes = {"size": 16, "patch": 2, "width": 32, "heads": 2, "groups": (1, 1, 1), "text_width": 8, "batch_size": 2}
    Trainer(EMMDiTFit(**sizes, steps=1), None, None).run().save(path)
    return f"e_mmdit:artifact={path},steps=2"


def test_a_prompt_becomes_a_file(laconic, tmp_path, method):
    told = laconic.json("generate", "--prompt", "red circle", "--method", method, "-o", tmp_path / "x.png", "--seed", 3)
    assert told["seed"] == 3 and told["size"] == [16, 16] and Image.open(tmp_path / "x.png").size == (16, 16)


def test_what_cannot_be_drawn_is_one_line(laconic, tmp_path, method):
    out = tmp_path / "x.png"
    asked = ("generate", "--prompt", "red circle", "-o", out, "--method")
    assert "none is shipped; make one with `laconic fit e_mmdit" in laconic.bad(2, *asked, "e_mmdit")
    assert "draws nothing from a text" in laconic.bad(2, *asked, "snapkv")
    assert "is none of its words" in laconic.bad(2, "generate", "-p", "a cat", "-o", out, "--method", method)
    assert "folder that exists" in laconic.bad(
        2, "generate", "-p", "red", "-o", tmp_path / "no" / "x.png", "--method", method
    )
    assert "give a file such as image.png" in laconic.bad(
        2, "generate", "-p", "red", "-o", tmp_path / "x.y", "--method", method
    )

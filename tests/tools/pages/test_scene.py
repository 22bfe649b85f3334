"""The scene of the README."""

import numpy as np
from PIL import Image

from tools.pages import parts, scene


def test_the_scene_is_current(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scene, "FILE", tmp_path / "scene.png")
    scene.main()
    made, checked_in = (np.asarray(Image.open(p)) for p in (tmp_path / "scene.png", parts.DOCS / "scene.png"))
    assert (made == checked_in).all()
    assert capsys.readouterr().out == "scene.png: What does the white sign say? HET\n"

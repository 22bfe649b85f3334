"""Films: frames of one size, and animations."""

import numpy as np
import pytest
from PIL import Image

from laconic.errors import MediaError
from laconic.media.film import Film
from laconic.media.frames import load_frames


def film(n=5, size=(12, 8)):
    return Film(tuple(Image.new("RGB", size, (40 * i, 10, 200 - 30 * i)) for i in range(n)))


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_what_is_written_is_read_again(tmp_path, kind):
    film().save(tmp_path / f"x.{kind}")
    found = [frame.image for frame in load_frames(tmp_path / f"x.{kind}", 9)]
    assert len(found) == 5
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(found, film().frames, strict=True))


def test_a_gif_has_the_frames_nearly(tmp_path):
    film().save(tmp_path / "x.gif")
    found = [np.asarray(frame.image).astype(int) for frame in load_frames(tmp_path / "x.gif", 9)]
    assert len(found) == 5 and max(np.abs(a - np.asarray(b)).max() for a, b in zip(found, film().frames, strict=True)) < 8


def test_frames_are_scaled_together_and_turned_to_rgb():
    small = film().resize((6, 4))
    assert small.size == (6, 4) and len(small) == 5 and small.frames[0].size == (6, 4)
    assert Film((Image.new("L", (3, 3), 7),)).frames[0].mode == "RGB"


def test_what_is_no_film_is_refused(tmp_path):
    with pytest.raises(MediaError, match="a film has frames of one size; these 0 have"):
        Film(())
    with pytest.raises(MediaError, match="these 2 have"):
        Film((Image.new("RGB", (3, 3)), Image.new("RGB", (4, 3))))
    with pytest.raises(ValueError, match=r"written as \.gif, \.png, \.webp, not as \.jpg"):
        film().save(tmp_path / "x.jpg")
    assert not list(tmp_path.iterdir())

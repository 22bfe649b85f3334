"""`gather`: images first, then frames; files shown in part, and too many pixels at once."""

import sys

import pytest
from helpers.image_files import colours, moving, noise, saved

from laconic.errors import MediaError
from laconic.media import gather


@pytest.fixture
def files(tmp_path):
    """Two images, an animated one, and a folder of ten frames."""
    (tmp_path / "a.png").write_bytes(saved(noise(30, 20), "PNG"))
    (tmp_path / "b.jpg").write_bytes(saved(noise(16, 16), "JPEG"))
    (tmp_path / "c.gif").write_bytes(moving("GIF", colours((1, 0, 0), (200, 0, 0), (0, 200, 0))))
    (tmp_path / "frames").mkdir()
    for i in range(10):
        (tmp_path / "frames" / f"{i}.png").write_bytes(saved(noise(16, 16, i), "PNG"))
    return tmp_path


def test_images_come_first_in_their_order(files):
    shown, notes = gather([str(files / "b.jpg"), str(files / "a.png")], str(files / "frames"), 2)
    assert [p.image.size for p in shown] == [(16, 16), (30, 20), (16, 16), (16, 16)] and notes == []
    assert [(p.number, p.of) for p in shown] == [(0, 1), (0, 1), (2, 10), (7, 10)]


def test_eight_frames_by_default(files):
    assert len(gather([], str(files / "frames"))[0]) == 8
    assert gather([]) == ([], [])


def test_partly_shown_files_are_noted(files):
    shown, notes = gather([str(files / "c.gif")])
    assert len(shown) == 1 and "c.gif is animated, and only its first frame is shown; give it as --video" in notes[0]
    shown, notes = gather([], str(files / "c.gif"), 5)
    assert len(shown) == 3 and "has 3 frames, fewer than the 5 asked for" in notes[0]


@pytest.mark.parametrize(
    ("kind", "name"), [("GIF", "photo.jpg"), ("WEBP", "photo"), ("PNG", "photo.apng"), ("AVIF", "a.png")]
)
def test_animations_under_another_name_are_noticed(tmp_path, kind, name):
    (tmp_path / name).write_bytes(moving(kind, [noise(16, 16, seed) for seed in range(3)]))
    _, notes = gather([str(tmp_path / name)])
    assert len(notes) == 1 and f"{name} is animated, and only its first frame is shown" in notes[0]


def test_pages_are_noticed_and_the_depth_map_of_a_photo_is_not(tmp_path):
    for kind, name in (("TIFF", "scan.tif"), ("MPO", "photo.jpg")):
        (tmp_path / name).write_bytes(moving(kind, [noise(16, 16, seed) for seed in range(3)]))
    assert "scan.tif is a stack of pages, and only its first frame" in gather([str(tmp_path / "scan.tif")])[1][0]
    assert gather([str(tmp_path / "photo.jpg")])[1] == []


def test_frames_that_fill_several_segments_are_shown_once_and_noted(tmp_path):
    path = tmp_path / "slow.gif"
    path.write_bytes(moving("GIF", [noise(16, 16, seed) for seed in range(12)], duration=[8900] + [100] * 11))
    for frames in (None, 10):
        shown, notes = gather([], str(path), frames)
        assert [p.number for p in shown] == ([0, 5] if frames is None else [0, 7])
        assert "its 12 frames last unequally long, and 2 of them are on screen in the middle of" in notes[0]


def test_too_many_pixels_together(files, monkeypatch):
    paths = [str(files / "a.png")] * 3
    monkeypatch.setattr(sys.modules["laconic.media.gather"], "MAX_TOTAL", 1800)
    assert len(gather(paths)[0]) == 3
    monkeypatch.setattr(sys.modules["laconic.media.gather"], "MAX_TOTAL", 1799)
    with pytest.raises(MediaError, match="over 1,799 pixels in total"):
        gather(paths)

"""`load_frames`: folders in natural order, animations, even sampling."""

from pathlib import Path

import pytest
from helpers.image_files import colours, moving, noise, saved

from laconic.errors import MediaError
from laconic.media import load_frames
from laconic.media.frames import natural

REDS = [(20 * i, 0, 0) for i in range(12)]


def shades(frames) -> list[int]:
    """Which of `REDS` each frame is."""
    return [round(frame.image.getpixel((8, 8))[0] / 20) for frame in frames]


def test_natural_order():
    names = ["f10.png", "f9.png", "F1.png", "f1b.png", "a.png", "2.png", "10.png", "01.png"]
    assert sorted(names, key=natural) == ["01.png", "2.png", "10.png", "a.png", "F1.png", "f1b.png", "f9.png", "f10.png"]


@pytest.fixture
def folder(tmp_path):
    """Twelve frames, 0.png .. 11.png, and files that are not frames."""
    for i, image in enumerate(colours(*REDS)):
        (tmp_path / f"{i}.png").write_bytes(saved(image, "PNG"))
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / ".0.png").write_bytes(b"hidden")
    (tmp_path / "more.png").mkdir()
    return tmp_path


def test_a_folder_of_frames(folder):
    assert shades(load_frames(folder, 12)) == list(range(12))
    frames = list(load_frames(folder, 3))
    assert shades(frames) == [2, 6, 10] == [frame.number for frame in frames]
    assert {frame.of for frame in frames} == {12} and frames[1].source == str(folder / "6.png")
    assert shades(load_frames(folder, 40)) == list(range(12))


def test_a_broken_frame_is_an_error_when_it_is_shown(folder):
    (folder / "6.png").write_bytes(b"nothing")
    assert shades(load_frames(folder, 2)) == [3, 9]
    with pytest.raises(MediaError, match=r"6\.png is not an image"):
        list(load_frames(folder, 3))


def test_folders_without_frames(tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"x")
    with pytest.raises(MediaError, match=r"holds no images; frames are files that end in \.jpg"):
        list(load_frames(tmp_path, 3))


def test_an_unreadable_folder(folder, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(MediaError, match=r"cannot read .*: Permission denied"):
        list(load_frames(folder, 3))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animations(tmp_path, kind):
    path = tmp_path / f"moving.{kind.lower()}"
    path.write_bytes(moving(kind, colours(*REDS), **({"lossless": True} if kind == "WEBP" else {})))
    frames = list(load_frames(path, 4))
    assert shades(frames) == [1, 4, 7, 10] and [frame.of for frame in frames] == [12] * 4
    path.write_bytes(saved(noise(), kind))
    assert [frame.of for frame in load_frames(path, 4)] == [1]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("name", ["moving.gif", "photo.jpg", "photo", "film.mp4"])
def test_animations_are_sampled_by_time_whatever_their_name(tmp_path, kind, name):
    """Twelve frames, the first for 8.9 s and the others for 0.1 s each: of ten seconds it has all but the end."""
    path = tmp_path / name
    path.write_bytes(moving(kind, [noise(16, 16, seed) for seed in range(12)], duration=[8900] + [100] * 11))
    assert [frame.number for frame in load_frames(path, 1)] == [0]
    assert [(frame.number, frame.of) for frame in load_frames(path, 10)] == [(0, 12), (7, 12)]
    assert [frame.number for frame in load_frames(path, 12)] == list(range(12))


def test_a_still_image_is_a_video_of_one_frame(tmp_path):
    for kind in ("JPEG", "BMP", "MPO"):
        path = tmp_path / "still"
        path.write_bytes(moving(kind, [noise(), noise()]) if kind == "MPO" else saved(noise(), kind))
        assert [(frame.number, frame.of, frame.image.size) for frame in load_frames(path, 4)] == [(0, 1, (30, 20))]


def test_pages_of_a_tiff_are_frames_of_equal_length(tmp_path):
    path = tmp_path / "stack.tif"
    path.write_bytes(moving("TIFF", colours(*REDS)))
    assert shades(load_frames(path, 3)) == [2, 6, 10]


def test_images_that_are_not_read_are_named(tmp_path):
    path = tmp_path / "photo.mp4"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    with pytest.raises(MediaError, match="is a HEIC image, which laconic cannot read"):
        list(load_frames(path, 2))


def test_folders_hold_every_format_that_is_read(tmp_path):
    for i, kind in enumerate(("BMP", "TIFF", "AVIF", "JPEG")):
        (tmp_path / f"{i}.{kind.lower()}").write_bytes(saved(noise(), kind))
    assert [Path(frame.source).name for frame in load_frames(tmp_path, 4)] == ["0.bmp", "1.tiff", "2.avif", "3.jpeg"]


def test_a_cut_off_animation(tmp_path):
    path = tmp_path / "moving.gif"
    path.write_bytes(moving("GIF", colours(*REDS))[:-1])
    with pytest.raises(MediaError, match="the GIF has no end"):
        list(load_frames(path, 4))


def test_no_frames_asked_for(folder):
    with pytest.raises(MediaError, match="at least one frame"):
        list(load_frames(folder, 0))

"""Video files, written and read by PyAV: sampling, rotation, and every way in which a file can fail to be a video."""

import random
import sys

import av
import numpy as np
import pytest
from helpers.films import film, greys
from PIL import Image

from laconic.errors import MediaError
from laconic.media import load_frames

SHADES = [20 * i for i in range(12)]


def shades(frames):
    """Which of `SHADES` each frame is."""
    return [round(float(np.asarray(frame.image).mean()) / 20) for frame in frames]


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.avi", "film.mov"])
def test_frames_of_a_video(tmp_path, name):
    path = film(tmp_path / name, greys(*SHADES))
    frames = list(load_frames(path, 3))
    assert shades(frames) == [2, 6, 10] == [frame.number for frame in frames]
    assert [(frame.of, frame.source, frame.image.mode) for frame in frames] == [(12, str(path), "RGB")] * 3
    assert shades(load_frames(path, 50)) == list(range(12))


@pytest.mark.parametrize("name", ["film.mkv", "film.mp4"])
def test_variable_frame_rates_are_sampled_by_time(tmp_path, name):
    """Eight dark frames of a second each, then two seconds with fifty bright ones: of ten seconds eight are dark."""
    times = [1000 * i for i in range(8)] + [8000 + 40 * i for i in range(50)]
    path = film(tmp_path / name, greys(*[20] * 8, *[220] * 50), times=times)
    frames = list(load_frames(path, 5))
    assert [frame.number for frame in frames] == [1, 3, 5, 7, 8 + 25] and shades(frames) == [1, 1, 1, 1, 11]
    assert [frame.number for frame in load_frames(path, 20)] == [*range(8), 14, 26, 39, 51]


def test_the_rate_in_milliseconds_is_no_variable_rate(tmp_path):
    """30 frames a second last 33 or 34 ms in Matroska; the frames are those of their numbers."""
    path = film(tmp_path / "film.mkv", greys(*[20 * (i % 12) for i in range(60)]), rate=30)
    for count in (1, 2, 3, 4, 5, 6, 10, 12, 15, 20):
        assert [frame.number for frame in load_frames(path, count)] == [
            (2 * i + 1) * 60 // (2 * count) for i in range(count)
        ]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("film.mkv", {}),
        ("film.webm", {}),
        ("film.avi", {}),
        ("film.mov", {}),
        ("film.mp4", {}),
        ("film.mp4", {"movflags": "faststart"}),
        ("film.mp4", {"movflags": "frag_keyframe+empty_moov"}),
    ],
)
def test_half_a_video_is_not_shown_as_the_whole(tmp_path, name, options):
    codec = "libvpx" if name.endswith("webm") else "mpeg4"
    path = film(tmp_path / name, greys(*SHADES), codec=codec, **options)
    whole = path.read_bytes()
    assert next(load_frames(path, 1)).of == 12
    for share in (0.5, 0.8, 0.97):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(MediaError, match=rf"{name} is cut off: .* the end of the video is missing"):
            list(load_frames(path, 3))


def test_a_recording_of_unknown_length_is_shown(tmp_path):
    path = film(tmp_path / "live.mkv", greys(*SHADES), live="1")
    assert shades(load_frames(path, 3)) == [2, 6, 10]


def with_cover(path, frames):
    """A video of `frames` behind a cover image that comes first; without frames, sound."""
    with av.open(str(path), "w", format="mp4") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        if frames:
            stream = container.add_stream("mpeg4", rate=10)
            stream.height, stream.width, stream.pix_fmt = frames[0].shape[0], frames[0].shape[1], "yuv420p"
        else:
            stream = container.add_stream("aac", rate=8000)
            frames = [np.zeros((1, 1024), np.float32)]
        image = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 240, np.uint8), format="rgb24").reformat(format="yuvj420p")
        container.mux(cover.encode(image))
        container.mux(cover.encode())
        for frame in frames:
            if frame.ndim == 3:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            else:
                sound = av.AudioFrame.from_ndarray(frame, format="fltp", layout="mono")
                sound.sample_rate = 8000
                container.mux(stream.encode(sound))
        container.mux(stream.encode())
    return path


def test_a_cover_image_is_not_the_video(tmp_path):
    path = with_cover(tmp_path / "film.mp4", greys(*SHADES))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 2
    assert [frame.of for frame in load_frames(path, 3)] == [12] * 3 and shades(load_frames(path, 3)) == [2, 6, 10]


def test_music_with_a_cover_has_no_frames(tmp_path):
    with pytest.raises(MediaError, match=r"song\.m4a has only a cover image, no video"):
        list(load_frames(with_cover(tmp_path / "song.m4a", []), 3))


def test_videos_are_turned_upright(tmp_path):
    """A phone held upright stores rows sideways, with the angle by which a player has to turn them."""
    image = np.zeros((48, 96, 3), np.uint8)
    image[:, :48, 0] = 250  # left half red
    for rotation, size, red in ((-90, (48, 96), (24, 10)), (90, (48, 96), (24, 86)), (180, (96, 48), (86, 24))):
        path = film(tmp_path / f"{rotation}.mp4", [image] * 3, rotation)
        found = next(load_frames(path, 1)).image
        assert found.size == size and found.getpixel(red)[0] > 200
        assert found.getpixel((size[0] - 1 - red[0], size[1] - 1 - red[1]))[0] < 60


def test_a_file_with_only_sound_has_no_frames(tmp_path):
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(MediaError, match=r"sound\.wav has no video stream, so no frames"):
        list(load_frames(tmp_path / "sound.wav", 3))


def test_a_video_without_frames(tmp_path):
    with av.open(str(tmp_path / "empty.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        container.start_encoding()
    with pytest.raises(MediaError, match=r"empty\.avi is a video without frames"):
        list(load_frames(tmp_path / "empty.avi", 3))


def test_images_that_are_far_too_thin_are_refused_before_decoding(tmp_path):
    path = film(tmp_path / "thin.avi", greys(0, height=4, width=4000), codec="rawvideo")
    with pytest.raises(MediaError, match=r"thin\.avi is 4000 x 4 pixels"):
        list(load_frames(path, 1))


def test_files_that_are_not_videos(tmp_path):
    text = tmp_path / "film.mp4"
    text.write_text("no film" * 100)
    with pytest.raises(MediaError, match=r"film\.mp4 is not a video that can be read"):
        list(load_frames(text, 3))
    with pytest.raises(MediaError, match="no such file or folder"):
        list(load_frames(tmp_path / "none.mp4", 3))
    whole = film(tmp_path / "whole.mp4", greys(*SHADES)).read_bytes()
    text.write_bytes(whole[: len(whole) // 2])  # an MP4's index is at its end
    with pytest.raises(MediaError, match=r"film\.mp4 is cut off"):
        list(load_frames(text, 3))


def test_mutated_videos_give_frames_or_a_clean_error(tmp_path):
    rng = random.Random(0)
    files = [film(tmp_path / f"a.{kind}", greys(*SHADES[:5])).read_bytes() for kind in ("mp4", "avi", "mkv")]
    path, refused = tmp_path / "mutated.mp4", 0
    for _ in range(300):
        data = bytearray(rng.choice(files))
        for _ in range(rng.choice((1, 4, 32))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.randrange(len(data))] if rng.random() < 0.3 else data)
        try:
            frames = list(load_frames(path, 2))
            assert all(isinstance(frame.image, Image.Image) and frame.image.mode == "RGB" for frame in frames)
        except MediaError as error:
            refused += 1
            assert str(path) in str(error)
    assert 30 < refused < 290


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    path = film(tmp_path / "film.mp4", greys(*SHADES))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MediaError, match=r"pip install 'laconic-transformers\[video\]', or give a folder of frames"):
        list(load_frames(path, 3))


def test_times_of_frames(tmp_path):
    """In seconds from the beginning, for constant and for variable rates, and of an animation."""
    path = film(tmp_path / "film.mkv", greys(*SHADES), times=[1000 * i**2 for i in range(12)])
    frames = list(load_frames(path, 12))
    assert [frame.time for frame in frames] == pytest.approx([float(i**2) for i in range(12)], abs=0.01)
    assert frames[0].length == pytest.approx(121 + 21, abs=0.01)
    frames = list(load_frames(film(tmp_path / "film.mp4", greys(*SHADES), rate=4), 3))
    assert [frame.time for frame in frames] == pytest.approx([0.5, 1.5, 2.5]) and frames[0].length == pytest.approx(3)
    shown = [Image.new("L", (8, 8), i) for i in range(4)]
    shown[0].save(tmp_path / "a.gif", save_all=True, append_images=shown[1:], duration=[100, 200, 300, 400])
    frames = list(load_frames(tmp_path / "a.gif", 4))
    assert [frame.time for frame in frames] == [0, 0.1, 0.3, 0.6] and frames[0].length == 1.0

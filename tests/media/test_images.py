"""`load_image`: every format and mode, orientation, limits, and files that are not complete images."""

import struct
import zlib

import numpy as np
import pytest
from helpers.image_files import colours, corpus, moving, noise, saved, turned
from PIL import Image

from laconic.errors import LaconicError, MediaError
from laconic.media import images as images
from laconic.media import load_image
from laconic.media.images import animation, durations, sequence


@pytest.fixture
def file(tmp_path):
    """Writes bytes to a file."""

    def write(data: bytes, name: str = "image"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    """A PNG written by hand: what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("name", corpus())
def test_every_kind_becomes_rgb(file, name):
    image = load_image(file(corpus()[name]))
    wanted = (16, 16) if name in ("mpo", "apng", "moving webp", "moving gif", "moving avif", "pages") else (30, 20)
    assert image.mode == "RGB" and image.size == (wanted if "exif" not in name else wanted[::-1])


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("BMP", {}), ("TIFF", {})])
def test_lossless_pixels_are_exact(file, kind, options):
    assert np.array_equal(load_image(file(saved(noise(), kind, **options))), noise())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_exif_orientation(file, orientation, kind):
    """The stored row r, column c is seen where the EXIF standard says: slow, pixel by pixel."""
    stored = np.asarray(noise())
    height, width = stored.shape[:2]
    seen = np.zeros((height, width, 3) if orientation < 5 else (width, height, 3), np.uint8)
    for r in range(height):
        for c in range(width):
            up, left = height - 1 - r, width - 1 - c
            place = [(r, c), (r, left), (up, left), (up, c), (c, r), (c, up), (left, up), (left, r)][orientation - 1]
            seen[place] = stored[r, c]
    path = file(saved(noise(), kind, exif=turned(orientation), **({"lossless": True} if kind == "WEBP" else {})))
    assert np.array_equal(load_image(path), seen)


def test_jpeg_orientation(file):
    """The left half is red as stored; a phone held upright asks for a clockwise turn, and then the top is red."""
    image = Image.new("RGB", (32, 16), "blue")
    image.paste("red", (0, 0, 16, 16))
    found = load_image(file(saved(image, "JPEG", exif=turned(6), quality=95, subsampling=0)))
    assert found.size == (16, 32)
    assert found.getpixel((8, 4))[0] > 240 and found.getpixel((8, 28))[2] > 240


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_orientations_without_a_meaning_turn_nothing(file, orientation):
    assert np.array_equal(load_image(file(saved(noise(), "PNG", exif=turned(orientation)))), noise())


def test_transparency_is_composited_over_white(file):
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((255, 51, 0)):
        image.putpixel((x, 0), (100, 0, 200, alpha))
    found = np.asarray(load_image(file(saved(image, "PNG"))))[0]
    expected = [[round(c * a / 255 + 255 * (1 - a / 255)) for c in (100, 0, 200)] for a in (255, 51, 0)]
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert found[0].tolist() == [100, 0, 200] and found[2].tolist() == [255, 255, 255]


def test_transparent_palette_and_grey(file):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert np.asarray(load_image(file(saved(image, "PNG", transparency=1)))).tolist() == [[[10, 20, 30], [255] * 3]]
    grey = Image.fromarray(np.array([[7, 90]], np.uint8))
    assert np.asarray(load_image(file(saved(grey, "PNG", transparency=7)))).tolist() == [[[255] * 3, [90] * 3]]
    both = Image.merge("LA", (grey, Image.fromarray(np.array([[255, 0]], np.uint8))))
    assert np.asarray(load_image(file(saved(both, "PNG")))).tolist() == [[[7] * 3, [255] * 3]]


def test_sixteen_bits_keep_the_eight_highest(file):
    values = np.array([[0, 255, 256, 0x1234, 0xFFFF]], np.uint16)
    path = file(saved(Image.fromarray(values), "PNG"))
    assert np.asarray(load_image(path))[0, :, 0].tolist() == [0, 0, 1, 0x12, 0xFF]
    rows = b"\0" + struct.pack(">6H", 0x1234, 0xAB00, 0x00FF, 0xFFFF, 0, 0x8000)
    assert np.asarray(load_image(file(png(2, 1, 16, 2, rows))))[0].tolist() == [[0x12, 0xAB, 0], [0xFF, 0, 0x80]]
    rows = b"\0" + struct.pack(">4H", 0x1234, 0xFFFF, 0x1234, 0)
    assert np.asarray(load_image(file(png(2, 1, 16, 4, rows))))[0].tolist() == [[0x12] * 3, [255] * 3]


def test_sixteen_bits_with_a_transparent_grey(file):
    data = saved(Image.fromarray(np.array([[0x1234, 0x1235]], np.uint16)), "PNG")
    at = data.index(b"IDAT") - 4
    clear = chunk(b"tRNS", struct.pack(">H", 0x1234))
    assert np.asarray(load_image(file(data[:at] + clear + data[at:])))[0].tolist() == [[255] * 3, [0x12] * 3]


def test_cmyk(file):
    """No ink is white, full black ink is black, cyan takes the red away."""
    for ink, expected in (((0, 0, 0, 0), (255, 255, 255)), ((0, 0, 0, 255), (0, 0, 0)), ((255, 0, 0, 0), (0, 255, 255))):
        found = load_image(file(saved(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100)))
        assert np.abs(np.asarray(found).astype(int) - expected).max() <= 6


def test_of_several_images_the_first_is_shown(file):
    red, green, blue = colours((255, 0, 0), (0, 255, 0), (0, 0, 255))
    for kind in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        path = file(moving(kind, [red, green, blue], **options))
        assert len(durations(path)) == 3 and sequence(path) == "animated"
        assert [frame.getpixel((8, 8)) for frame in animation(path, [0, 1, 2])] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
        assert [frame.getpixel((8, 8)) for frame in animation(path, [2])] == [(0, 0, 255)]
        assert load_image(path).getpixel((8, 8)) == (255, 0, 0)
    assert len(durations(file(saved(red, "PNG")))) == 1 and sequence(file(saved(red, "GIF"))) == ""


@pytest.mark.parametrize("name", corpus())
def test_a_file_cut_off_anywhere_is_an_error_or_the_same_image(file, name):
    """Some files do not need their end. What is read without it is the complete image, and all frames."""
    whole = corpus()[name]
    path = file(whole)
    expected, count = np.asarray(load_image(path)), len(durations(path))
    ends = [*range(0, len(whole), 29), *range(len(whole) - 9, len(whole))]
    broken = 0
    for end in ends:
        path = file(whole[:end])
        try:
            assert np.array_equal(load_image(path), expected), end
            assert len(durations(path)) == count, end
        except MediaError as error:
            assert str(path) in str(error)
            broken += 1
    assert broken >= 5


def test_empty_file(file):
    with pytest.raises(MediaError, match="is empty"):
        load_image(file(b""))


@pytest.mark.parametrize(("data", "name"), [(b"just words\n" * 20, "words.jpg"), (b"PK\3\4" + bytes(99), "zip.webp")])
def test_files_that_are_not_images_whatever_their_name(file, data, name):
    with pytest.raises(MediaError, match=rf"{name} is not an image, or .*; laconic reads JPEG, PNG, WEBP, GIF, BMP, TIFF"):
        load_image(file(data, name))


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)
SVG = b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (HEIC, "is a HEIC image, which laconic cannot read; save it as PNG or JPEG"),
        (SVG, "is an SVG drawing, which laconic cannot read; save it as PNG or JPEG"),
        (b"%PDF-1.7\n" + bytes(200), "is a PDF document, which laconic cannot read"),
        (saved(noise(), "PPM"), "is a Netpbm image, which laconic cannot read"),
        (saved(noise(), "ICO"), "is a Windows icon, which laconic cannot read"),
        (b"\0\0\0\x14ftypisom\0\0\0\0mp42" + bytes(99), "is an MP4 or QuickTime video, not an image; give it as --video"),
        (b"\x1a\x45\xdf\xa3" + bytes(99), "is a Matroska or WebM video, not an image; give it as --video"),
        (b"II*\0" + bytes(99), "is a TIFF image of a variety that Pillow cannot read"),
    ],
)
def test_known_formats_that_are_not_read_are_named_and_never_called_broken(file, data, words):
    with pytest.raises(MediaError, match=rf"image\.png {words}") as error:
        load_image(file(data, "image.png"))
    assert "at its very beginning" not in str(error.value)


def test_avif_with_a_pillow_that_has_none(file, monkeypatch):
    monkeypatch.setattr(images, "FORMATS", ("JPEG", "PNG"))
    with pytest.raises(MediaError, match=r"is an AVIF image, which Pillow reads from 11\.3 on; pip install 'pillow>=11\.3'"):
        load_image(file(saved(noise(), "AVIF")))


@pytest.mark.parametrize("mode", ["F", "I"])
def test_values_without_a_known_white_are_refused(file, mode):
    with pytest.raises(MediaError, match=r"stores its values as .*; save it with 8 or 16 bits a channel"):
        load_image(file(saved(noise().convert("L").convert(mode), "TIFF")))


def test_sixteen_bits_of_a_tiff(file):
    values = np.array([[0, 255, 256, 0x1234, 0xFFFF]], np.uint16)
    assert np.asarray(load_image(file(saved(Image.fromarray(values), "TIFF"))))[0, :, 0].tolist() == [0, 0, 1, 0x12, 0xFF]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_how_long_frames_last(file, kind):
    """As browsers show them: next to nothing stands for a tenth of a second."""
    times = [5000, 40, 10, 300]
    path = file(moving(kind, [noise(16, 16, seed) for seed in range(4)], duration=times))
    assert durations(path) == [5000, 40, 100, 300]
    assert len(durations(file(saved(noise(), kind)))) == 1


def test_several_images_in_one_file_are_named(file):
    frames = [noise(16, 16, seed) for seed in range(3)]
    kinds = {kind: sequence(file(moving(kind, frames))) for kind in ("GIF", "WEBP", "PNG", "AVIF", "TIFF", "MPO")}
    assert kinds == dict.fromkeys(("GIF", "WEBP", "PNG", "AVIF"), "animated") | {"TIFF": "a stack of pages", "MPO": ""}


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(MediaError, match=r"cannot read .*none\.jpg: No such file"):
        load_image(tmp_path / "none.jpg")
    with pytest.raises(MediaError, match="is a folder, not an image; give a folder of frames as --video"):
        load_image(tmp_path)
    with pytest.raises(MediaError, match="is not a regular file"):
        load_image("/dev/zero")


def test_unreadable_file(file, monkeypatch):
    path = file(saved(noise(), "PNG"))

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(path), "read_bytes", refuse)
    with pytest.raises(MediaError, match=r"cannot read .*: Permission denied"):
        load_image(path)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(file):
    """22 KB that would be 2.7 GB: the header alone is read."""
    bomb = png(30_000, 30_000, 8, 2, bytes(10**6))
    assert len(bomb) < 22_000
    with pytest.raises(MediaError, match=r"too large|at most 64,000,000 can be read"):
        load_image(file(bomb))


def test_pixel_limit_is_exact(file):
    path = file(saved(noise(30, 20), "PNG"))
    assert load_image(path, max_pixels=600).size == (30, 20)
    with pytest.raises(MediaError, match=r"30 x 20 = 600 pixels; at most 599 can be read\. Make it smaller"):
        load_image(path, max_pixels=599)


def test_huge_files_are_not_read(file, monkeypatch):
    path = file(saved(noise(), "PNG"))
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    with pytest.raises(MediaError, match="image files of at most 100 are read"):
        load_image(path)


def test_thin_images_are_refused(file):
    assert load_image(file(saved(noise(200, 1), "PNG"))).size == (200, 1)
    with pytest.raises(MediaError, match="one side is over 200 times the other"):
        load_image(file(saved(noise(201, 1), "PNG")))


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_no_pixels(file, size):
    with pytest.raises(MediaError, match=r"there is nothing to see|broken"):
        load_image(file(png(*size, 8, 2, b"\0")))


def test_too_many_frames(file, monkeypatch):
    path = file(moving("GIF", [noise(16, 16, seed) for seed in range(5)]))
    assert len(durations(path)) == 5
    monkeypatch.setattr(images, "MAX_DRAWN", 4 * 16 * 16)
    with pytest.raises(MediaError, match="over 4 frames of 16 x 16 pixels are not read"):
        len(durations(path))


def test_the_error_is_a_laconic_error():
    assert issubclass(MediaError, LaconicError) and issubclass(MediaError, ValueError)

"""WAV headers that lie, and ends that are missing."""

import struct

import pytest
from helpers.sound_files import tone, wav, written

from laconic.errors import MediaError
from laconic.media.wav import check_wav

WHOLE = wav(tone(0.2))


def test_whole_files_pass():
    check_wav(WHOLE, "x")
    check_wav(written(tone(0.2)), "x")
    check_wav(written(tone(0.2), subtype="FLOAT"), "x")
    check_wav(written(tone(0.2), subtype="ULAW"), "x")
    check_wav(wav(tone(0.2), length=0xFFFFFFFF), "x")  # a recording into a pipe
    check_wav(b"fLaC" + b"\0" * 40, "x")


@pytest.mark.parametrize("left", [len(WHOLE) - 1, len(WHOLE) // 2, 45])
def test_a_missing_end(left):
    with pytest.raises(MediaError, match=r"x is cut off: its header announces 6,400 bytes of sound"):
        check_wav(WHOLE[:left], "x")


@pytest.mark.parametrize("a_second", [16_000, 64_000, 32_001])
def test_two_rates(a_second):
    with pytest.raises(MediaError, match="x contradicts itself: 16000 samples a second"):
        check_wav(wav(tone(0.2), a_second=a_second), "x")


def test_no_data():
    with pytest.raises(MediaError, match="no data chunk"):
        check_wav(WHOLE[:36], "x")
    with pytest.raises(MediaError, match="fmt chunk is missing"):
        check_wav(WHOLE[:12] + WHOLE[36:], "x")


def test_chunks_before_the_data_are_skipped_with_their_padding():
    odd = b"note" + struct.pack("<I", 3) + b"abc\0"
    check_wav(WHOLE[:36] + odd + WHOLE[36:], "x")
    with pytest.raises(MediaError, match="cut off"):
        check_wav((WHOLE[:36] + odd + WHOLE[36:])[:-2], "x")

"""Sound files: what is read as it is, what is converted, and what is refused with a reason."""

import numpy as np
import pytest
from helpers.sound_files import FORMATS, tone, wav, written

from laconic.errors import MediaError
from laconic.media import audio
from laconic.media.audio import load_sound, sound_of

pytest.importorskip("soundfile")


@pytest.mark.parametrize(("format", "subtype"), FORMATS)
def test_formats(tmp_path, format, subtype):
    path = tmp_path / f"tone.{format.lower()}"
    path.write_bytes(written(tone(), format=format, subtype=subtype))
    sound = load_sound(path)
    assert sound.samples.dtype == np.float32 and sound.samples.ndim == 1
    assert sound.seconds == pytest.approx(1.0, abs=0.1)  # MP3 begins with a pause of its own
    assert (sound.source_rate, sound.channels, sound.notes) == (16_000, 1, ())
    middle = sound.samples[4_000:12_000]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / 2**0.5, rel=0.05)


def test_samples_are_exact():
    x = tone()
    assert np.abs(sound_of(written(x)).samples - x).max() <= 1 / 32768
    assert np.array_equal(sound_of(written(x, subtype="FLOAT")).samples, x)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
def test_rates_become_16_khz(rate):
    sound = sound_of(written(tone(0.5, rate), rate))
    assert sound.source_rate == rate
    assert len(sound.samples) == 8_000
    assert np.abs(sound.samples - tone(0.5))[400:-400].max() < 1e-3


@pytest.mark.parametrize("rate", [1_000, 3_999, 200_000])
def test_rates_out_of_range(rate):
    with pytest.raises(MediaError, match="samples a second; 4,000 to 192,000 are read"):
        sound_of(written(tone(1.0, rate, 50.0), rate))


def test_channels_are_averaged():
    left, right = tone(hertz=300.0), tone(hertz=700.0)
    sound = sound_of(written(np.stack([left, right], 1), subtype="FLOAT"))
    assert sound.channels == 2 and sound.notes == ()
    assert np.allclose(sound.samples, (left + right) / 2, atol=1e-6)


def test_channels_that_cancel_each_other_are_noted():
    sound = sound_of(written(np.stack([tone(), -tone()], 1)))
    assert any("cancel each other" in note for note in sound.notes)


def test_too_many_channels():
    with pytest.raises(MediaError, match="33 channels; at most 32"):
        sound_of(written(np.zeros((2_000, 33), np.float32)))


def test_a_tenth_of_a_second_is_read_and_less_is_not():
    assert sound_of(written(tone(0.1))).seconds == pytest.approx(0.1)
    with pytest.raises(MediaError, match=r"0\.050 s long; at least 0\.1 s"):
        sound_of(written(tone(0.05)))


def test_three_hours_are_refused_before_they_are_decoded(monkeypatch):
    import soundfile

    hours = written(np.zeros(3 * 3600 * 4_000, np.float32), 4_000, "FLAC", "PCM_16")
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(MediaError, match=r"3\.0 h long; at most 1 h"):
        sound_of(hours)


def test_silence_is_read_and_noted():
    sound = sound_of(written(np.zeros(8_000, np.float32)))
    assert not sound.samples.any()
    assert sound.notes == ("it is silent: no sample is louder than -80 dB of full scale",)


def test_clipping_is_read_and_noted():
    loud = sound_of(written(tone(level=3.0).clip(-1, 1)))
    assert any("clips" in note for note in loud.notes)
    beyond = sound_of(written(tone(level=3.0), subtype="FLOAT"))
    assert any("clips" in note for note in beyond.notes)
    assert np.abs(beyond.samples).max() == 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers(value):
    x = tone()
    x[100] = value
    with pytest.raises(MediaError, match="no numbers"):
        sound_of(written(x, subtype="FLOAT"))


def test_a_rate_that_lies():
    with pytest.raises(MediaError, match="contradicts itself"):
        sound_of(wav(tone(), rate=8_000, a_second=32_000))


@pytest.mark.parametrize(("format", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16")])
def test_a_truncated_file(format, subtype):
    data = written(tone(2.0), format=format, subtype=subtype)
    with pytest.raises(MediaError, match="cut off"):
        sound_of(data[: len(data) // 2])


def test_text_called_wav(tmp_path):
    path = tmp_path / "talk.wav"
    path.write_text("this is no sound\n" * 100)
    with pytest.raises(MediaError, match=r"talk\.wav is not a sound file that can be read: [^<]* Give WAV"):
        load_sound(path)


@pytest.mark.parametrize(
    ("head", "kind"), [(b"\x89PNG\r\n\x1a\n", "a PNG image"), (b"%PDF-1.4", "a PDF"), (b"\x1a\x45\xdf\xa3", "a Matroska")]
)
def test_files_of_other_kinds_are_named(head, kind):
    with pytest.raises(MediaError, match=kind):
        sound_of(head + b"\0" * 400)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(MediaError, match="No such file"):
        load_sound(tmp_path / "none.wav")
    with pytest.raises(MediaError, match="is a folder"):
        load_sound(tmp_path)
    (tmp_path / "empty.wav").touch()
    with pytest.raises(MediaError, match=r"empty\.wav is empty"):
        load_sound(tmp_path / "empty.wav")


def test_without_soundfile(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MediaError, match=r"pip install 'laconic-transformers\[audio\]'"):
        sound_of(wav(tone()))


def test_large_files_are_not_read(tmp_path, monkeypatch):
    path = tmp_path / "large.wav"
    path.write_bytes(wav(tone()))
    monkeypatch.setattr(audio, "MAX_BYTES", 1_000)
    with pytest.raises(MediaError, match="at most 1,000 are read"):
        load_sound(path)

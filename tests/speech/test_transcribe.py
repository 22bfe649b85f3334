"""Sounds written down: short ones, long ones, and the command line."""

import json

import numpy as np
import pytest
from helpers.sound_files import tone, written
from typer.testing import CliRunner

import laconic
from laconic.cli import app
from laconic.media.audio import sound_of
from laconic.pretrained import PretrainedError
from laconic.speech.transcribe import transcribe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whisper():
    try:
        return laconic.load("whisper-tiny-en")
    except PretrainedError as error:
        pytest.skip(str(error))


def test_a_long_sound_has_several_windows(whisper):
    model, processor = whisper
    noise = np.random.default_rng(0).standard_normal(40 * 16_000).astype(np.float32) * 0.01
    done = transcribe(model, processor, sound_of(written(noise)), "audio_pool:keep=0.5", max_new_tokens=8)
    assert done.stats.windows >= 2 and done.stats.achieved == pytest.approx(0.5, abs=0.01)
    assert isinstance(done.text, str)


def test_the_neutral_setting_writes_what_the_model_writes(whisper):
    model, processor = whisper
    sound = sound_of(written(tone(1.0)))
    plain = transcribe(model, processor, sound, max_new_tokens=8)
    assert transcribe(model, processor, sound, "a_tome:keep=1", max_new_tokens=8).text == plain.text


def test_on_the_command_line(whisper, tmp_path):
    path = tmp_path / "tone.wav"
    path.write_bytes(written(tone(1.0)))
    arguments = ["run", "--audio", str(path), "--model", "whisper-tiny-en", "--method", "a_tome", "--keep", "0.25"]
    shown = CliRunner().invoke(app, arguments)
    assert (
        shown.exit_code == 0 and "cross-attention" in shown.stdout and "encoder tokens   1,500, 50 of them" in shown.stdout
    )
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    figures = found["sounds"][0]["figures"]
    assert figures["kept_tokens"] == 12 + 50 or figures["kept_tokens"] == 13 + 50
    assert figures["cross_bytes"] == figures["kept_tokens"] * 2 * 4 * 384 * 4
    refused = CliRunner().invoke(app, [*arguments, "--question", "What?"])
    assert refused.exit_code and "takes no text" in (refused.stderr + refused.stdout)

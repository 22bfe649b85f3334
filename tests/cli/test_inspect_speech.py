"""`laconic inspect --audio` with a model that writes down what it hears: what its decoder looked at, budget by budget."""

import numpy as np
import pytest
from helpers.hearing import saved

import laconic as api
from laconic.cli.inspect_speech import level
from laconic.media.audio import load_sound
from laconic.pretrained import PretrainedError, ready
from laconic.speech.transcribe import transcribe

WHISPER = "whisper-tiny-en"


@pytest.fixture(scope="module")
def whisper():
    try:
        ready(WHISPER)
    except PretrainedError as error:
        pytest.skip(str(error))
    return api.load(WHISPER)


def test_the_first_of_what_became_one_token_stands_for_it():
    found = level(np.array([0, 0, -1, 1, 1, 2]), "0.5", "m", 0.5, "said")
    assert found.into.tolist() == [[0, 0, -1, 3, 3, 5]] and found.share.tolist() == [[1, 0, 0, 1, 0, 1]]
    assert found.achieved == 0.5 and found.answer == "said" and found.layers == [0]
    (cut,) = found.cuts
    assert (cut.before, cut.after, cut.merged, cut.method) == (6, 3, 2, "m")


def test_what_was_dropped_at_the_end_stands_for_nothing():
    found = level(np.array([0, 1, -1, -1]), "0.5", "m", 0.5, "")
    assert found.into.tolist() == [[0, 1, -1, -1]] and not level(np.arange(3), "1", "", 1.0, "").cuts


def test_tokens_and_texts_are_those_of_transcripts(laconic, whisper, tmp_path):
    talk, page = saved(tmp_path / "talk.wav", 2.0), tmp_path / "page.html"
    shown = laconic.json(
        "inspect", "--model", WHISPER, "--audio", talk, "--method", "audio_pool", "--keep", "0.5,0.25", "-o", page
    )
    model, processor = whisper
    sound = load_sound(talk)
    for one, keep in zip(shown["levels"], (0.25, 0.5, None), strict=True):
        methods = [] if keep is None else [f"audio_pool:keep={keep}"]
        done = transcribe(model, processor, sound, *methods)
        assert one["answer"] == done.text
        assert len(one["kept"]["0"]) == (done.windows[0].kept if methods else 100) and len(shown["audio_tokens"]) == 100
        assert len(one["kept"]["0"]) + len(one["merged"].get("0", {})) == 100
    text = page.read_text(encoding="utf-8")
    assert "What audio_pool kept of the sound" in text and "100 audio tokens, and padding after them" in text


def test_what_has_no_place_is_refused(laconic, whisper, tmp_path):
    talk, long = saved(tmp_path / "talk.wav", 1.0), saved(tmp_path / "long.wav", 31.0)
    for given, message in (
        (("--audio", talk, "-q", "What?"), "takes no text"),
        (("--audio", talk, "--audio", talk), "--audio is given 2 times"),
        (("--audio", long), "--audio lasts 31.0 s, and a window of this model 30 s"),
        (("--audio", talk, "--png", tmp_path / "x.png"), "--png is not about sound"),
    ):
        done = laconic("inspect", "--model", WHISPER, "--method", "audio_pool", *given)
        assert done.exit_code == 2 and message in done.stderr, done.stderr
        assert "Traceback" not in done.stderr

"""`laconic run --audio`: answers and figures of sound, and what is refused."""

import pytest
import torch
from helpers.hearing import save_hearing, saved
from helpers.run_keys import KEYS

import laconic as api
from laconic.media.audio import load_sound
from laconic.prompts import sound

QUESTION = "How many beeps are there?"
SHORT = ("-q", QUESTION, "--max-new-tokens", 4)
HEARD = {"sounds", "encoder_seconds", "encoder_seconds_uncompressed", "audio_in", "audio"}


@pytest.fixture(scope="session")
def hearing(tmp_path_factory) -> str:
    return save_hearing(tmp_path_factory.mktemp("hearing"))


@pytest.fixture
def talk(tmp_path) -> str:
    return saved(tmp_path / "talk.wav", 2.0)


def test_figures_are_those_of_a_session(laconic, hearing, talk):
    found = laconic.json("run", "--model", hearing, "--audio", talk, "--method", "snapkv:window=8", "--keep", 0.3, *SHORT)
    assert set(found) == KEYS | HEARD
    model, processor = api.load(hearing)
    prompt = sound.build(processor, [load_sound(talk).samples], "", QUESTION)
    ids = torch.tensor([prompt.ids])
    with api.compress(model, api.SnapKV(keep=0.3, window=8)) as session:
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False, **prompt.inputs)
    assert found["answer"] == processor.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    assert found["kv_bytes_end"] == session.stats.kv_bytes and found["prompt"]["tokens"] == prompt.tokens
    assert found["sounds"] == [{"file": talk, "seconds": 2.0, "notes": []}] and found["audio_in"] == 25
    assert found["audio"] == {str(layer): 25 for layer in range(6)} and found["encoder_seconds"] > 0


def test_fewer_audio_tokens_run(laconic, hearing, talk):
    found = laconic.json("run", "--model", hearing, "--audio", talk, "--method", "random_visual", "--keep", 0.2, *SHORT)
    assert set(found["audio"].values()) == {5} and found["achieved"] == pytest.approx(0.2)
    shown = laconic("run", "--model", hearing, "--audio", talk, "--method", "random_visual", "--keep", 0.2, *SHORT).stdout
    assert "talk.wav 2.00 s" in shown and "25 in; 5 in layers 0-5" in shown and "sound encoder" in shown
    assert "achieved 20.00% of the audio tokens" in shown


def test_several_sounds_and_a_question_that_comes_later(laconic, hearing, talk, tmp_path):
    other = saved(tmp_path / "other.wav", 1.0)
    found = laconic.json("run", "--model", hearing, "--audio", talk, "--audio", other, "--later", *SHORT)
    assert found["mode"] == "later" and found["audio_in"] == 25 + 12 and len(found["sounds"]) == 2


def test_what_does_not_go_together_is_refused(laconic, hearing, talk, tmp_path):
    long = saved(tmp_path / "long.wav", 9.0)
    text = tmp_path / "notes.wav"
    text.write_text("no sound")
    for given, message in (
        (("--audio", talk), "cannot give sound; drop --audio"),
        (("--model", hearing, "--audio", long), "sound 1 lasts 9.00 s; this model hears 0.14 to 8 s"),
        (("--model", hearing, "--audio", str(text)), "notes.wav"),
        (("--model", hearing, "--audio", "none.wav"), "none.wav"),
        (("--audio", talk, "--image", "photo.png"), "--audio goes neither with --image nor with --video"),
        (("--audio", talk, "--cache", "c.safetensors"), "--cache holds texts"),
        (("--audio", talk, "--prefill-chunk-size", 8), "--prefill-chunk-size does not go with --audio"),
    ):
        done = laconic("run", *given, *SHORT)
        assert done.exit_code != 0 and message in done.stderr, done.stderr
        assert "Traceback" not in done.stderr

"""`laconic inspect --video` and `--audio`: when frames are on screen, which token stands for which stretch of sound."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from helpers.hearing import save_hearing, saved
from helpers.vlm_files import save_llava
from PIL import Image

import laconic as api
from laconic.cli import inspect_time
from laconic.cli.inspect_patches import Eyes
from laconic.cli.inspect_time import edges_of, frame_time
from laconic.media import Frame
from laconic.media.audio import load_sound
from laconic.prompts.clip import Clip

TIMES = (0.0, 0.4, 1.5)


@pytest.fixture(scope="module")
def hearing(tmp_path_factory) -> str:
    return save_hearing(tmp_path_factory.mktemp("hearing"))


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> str:
    """Three frames that last 0.2, 0.6 and 0.4 s."""
    path = tmp_path_factory.mktemp("film") / "film.gif"
    frames = [Image.new("RGB", (96, 96), colour) for colour in ("red", "green", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[200, 600, 400])
    return str(path)


def frames(times=TIMES, length=2.0, of=9) -> list[Frame]:
    image = Image.new("RGB", (8, 8))
    return [Frame(image, number, of, "film.mp4", time, length) for number, time in enumerate(times)]


def test_frames_that_are_images_have_their_own_times():
    still = Frame(Image.new("RGB", (8, 8)), 0, 1, "a.png")
    assert edges_of([still, *frames()], None) == [(), (0.0, 0.4), (0.4, 1.5), (1.5, 2.0)]
    assert edges_of(frames((None, None), None), None) == [(), ()], "a folder of frames has no times"
    assert edges_of([still], None) == [()]


def test_a_video_that_is_one_to_the_model_has_the_edges_of_its_frames():
    still = Frame(Image.new("RGB", (8, 8)), 0, 1, "a.png")
    clip = Clip([frame.image for frame in frames()], TIMES, 2.0)
    assert edges_of([still, *frames()], clip) == [(), [0.0, 0.4, 1.5, 2.0]]


def test_a_view_may_stand_for_several_frames():
    edges = [0.0, 1.0, 2.0, 3.0, 4.5, 5.0]
    assert [frame_time(edges, i, 5) for i in (0, 4)] == [(0.0, 1.0), (4.5, 5.0)]
    assert [frame_time(edges, i, 3) for i in range(3)] == [(0.0, 2.0), (2.0, 4.5), (4.5, 5.0)]
    assert frame_time((), 0, 3) is None


def test_frames_of_a_video_are_shown_with_their_times(laconic, film, tmp_path):
    page = tmp_path / "page.html"
    given = ("--model", save_llava(tmp_path / "m"), "--video", film, "--method", "random_visual", "--keep", 0.5)
    found = laconic.json("inspect", *given, "--max-new-tokens", 1, "--out", page)
    assert [view["time"] for view in found["views"]] == [[0.0, 0.2], [0.2, 0.8], [0.8, 1.2]]
    assert len(found["visual_tokens"]) == 3 * 144 and len(found["images"]) == 3
    html = page.read_text(encoding="utf-8")
    assert "What random_visual kept of the video" in html and 'class="film"' in html and "0.20 s" in html
    assert [float(x) for x in re.findall(r"flex:([\d.]+) 1 0", html)] == [0.2, 0.6, 0.4]


def test_a_sound_is_shown_as_its_spectrogram(laconic, hearing, tmp_path):
    page, talk = tmp_path / "page.html", saved(tmp_path / "talk.wav", 2.0)
    given = ("--model", hearing, "--audio", talk, "--method", "audio_pool", "--keep", 0.5, "--max-new-tokens", 1)
    found = laconic.json("inspect", *given, "--out", page)
    assert found["question"] == "What is heard?" and found["sounds"] == [{"file": talk, "seconds": 2.0}]
    (view,), tokens = found["views"], found["audio_tokens"]
    assert view["time"] == [0.0, 2.0] and view["cells"] == [tokens] and len(tokens) == 25
    half = found["levels"][0]
    assert all(len(kept) == 13 for kept in half["kept"].values()) and len(half["merged"]["0"]) == 12
    html = page.read_text(encoding="utf-8")
    assert "What audio_pool kept of the sound" in html and "25 audio tokens" in html and "0.00 to 2.00 s" in html
    shown = json.loads(re.search(r"const DATA = (\{.*\});\n", html)[1])["views"][0]["image"]
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.partition(",")[2]))))
    assert drawn.shape == (128, 100, 3), "64 mels, each drawn twice; four columns for each token, the padding left out"


def test_long_sounds_have_several_lines(hearing, tmp_path):
    model, processor = api.load(hearing)
    sound = load_sound(saved(tmp_path / "talk.wav", 3.0)).samples
    text = "<s><|user|><|audio_bos|><|AUDIO|><|audio_eos|>"
    inputs = processor(text=text, audio=[sound], sampling_rate=16_000, return_tensors="pt")
    with pytest.MonkeyPatch.context() as patch, Eyes(model) as eyes, torch.no_grad():
        patch.setattr(inspect_time, "LINE", 1.2)
        model(**inputs)
        views, numbers = eyes.views()
    assert [view.time for view in views] == [(0.0, 1.2), (1.2, 2.4), (2.4, pytest.approx(2.96))]
    assert [view.cells.shape for view in views] == [(1, 15), (1, 15), (1, 7)]
    assert np.concatenate([view.cells[0] for view in views]).tolist() == list(range(len(numbers)))
    assert [view.width for view in views] == [1.0, 1.0, 7 / 15] and views[2].pixels.shape[1] == 28


def test_what_is_about_images_is_refused_for_sound(laconic, hearing, tmp_path):
    talk = saved(tmp_path / "talk.wav", 0.5)
    assert "--png is not about sound" in laconic.bad(2, "inspect", "--audio", talk, "--model", hearing, "--png", "a.png")
    assert "--lens is not about sound" in laconic.bad(2, "inspect", "--audio", talk, "--model", hearing, "--lens", "x")

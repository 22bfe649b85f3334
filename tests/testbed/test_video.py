"""The shipped model for videos: it answers about unseen clips, methods act on it, and the command line shows it a file."""

import json

import pytest
from typer.testing import CliRunner

import laconic
from laconic.cli import app
from laconic.engine.engine import Engine, Request
from laconic.prompts.batch import encode_clips
from laconic.specs import create_methods
from laconic.tasks import find_task

CLIP = "examples/clip.mp4"


@pytest.fixture(scope="module")
def engine():
    return Engine(*laconic.load("testbed/video"))


def right(engine, task, method=None, samples=20):
    task = find_task(task)
    asked = list(task.samples(0, samples))
    inputs = encode_clips(engine.reader, [s.question for s in asked], [s.shown()[0] for s in asked])
    methods = create_methods([method]) if method else None
    answers = engine.answer_batch(inputs, Request(methods=methods, max_new_tokens=4))
    return sum(task.score(a.text, s) for a, s in zip(answers, asked, strict=True)) / samples


@pytest.mark.parametrize("kind", ["reading", "first", "when", "times", "direction"])
def test_it_answers_about_clips_of_8_frames(engine, kind):
    assert right(engine, f"clip_{kind}_8") >= 0.85


def test_a_sign_in_few_of_32_frames_is_lost_with_most_of_them(engine):
    assert right(engine, "clip_reading_32") >= 0.85
    assert right(engine, "clip_reading_32", "uniform_frames:keep=0.05") <= 0.5


def test_the_command_line_shows_it_a_file():
    options = ["run", "--video", CLIP, "--frames", "16", "--method", "evs", "--keep", "0.5", "--json"]
    ran = CliRunner().invoke(app, [*options, "--question", "Which comes first, the green cross or the orange cross?"])
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.stdout)
    assert "orange cross" in json.dumps(said) and "testbed/video" in json.dumps(said)

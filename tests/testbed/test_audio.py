"""The shipped model that hears: it answers about unseen sounds, and methods act on it by its name."""

import pytest

import laconic
from laconic.engine.engine import Engine, Request
from laconic.prompts.batch import encode_sounds
from laconic.specs import create_methods
from laconic.tasks import find_task


@pytest.fixture(scope="module")
def engine():
    return Engine(*laconic.load("testbed/audio"))


def right(engine, task, method=None, samples=40):
    task = find_task(task)
    asked = list(task.samples(0, samples))
    inputs = encode_sounds(engine.reader, [s.question for s in asked], [s.shown()[0] for s in asked])
    methods = create_methods([method]) if method else None
    answers = engine.answer_batch(inputs, Request(methods=methods, max_new_tokens=task.new_tokens))
    return sum(task.score(a.text, s) for a, s in zip(answers, asked, strict=True)) / samples


@pytest.mark.parametrize("kind", ["transcription", "after", "count", "order", "moment"])
def test_it_answers_about_sounds(engine, kind):
    assert right(engine, f"sound_{kind}") >= 0.8


def test_digits_are_lost_with_most_of_the_tokens(engine):
    assert right(engine, "sound_transcription", "random_audio:keep=0.1") <= 0.3

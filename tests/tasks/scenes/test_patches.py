"""One thing in one patch."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from laconic.tasks import find_task
from laconic.tasks.scenes.patches import ASKED, PATCH_TASKS
from laconic.tasks.scenes.scenes import render
from laconic.tasks.task import EVALUATION_SEED, Judged


@pytest.mark.parametrize("task", PATCH_TASKS, ids=lambda task: task.name)
def test_all_that_is_not_plain_is_in_one_patch(task, monkeypatch):
    drawn = []
    monkeypatch.setattr("laconic.tasks.scenes.patches.render", lambda scene: drawn.append(scene) or render(scene))
    for sample in task.samples(0, 24):
        image = np.asarray(sample.shown()[0]).astype(int)
        plain = render(replace(drawn[-1], shapes=())).astype(int)
        changed = {(y // task.patch, x // task.patch) for y, x in np.argwhere(abs(image - plain).max(-1) > 0).tolist()}
        assert image.shape == (task.size, task.size, 3) and len(changed) == 1


def test_the_same_image_is_asked_three_things_and_another_one_for_a_character():
    task = find_task("patch")
    samples = task.samples(0, 400)
    assert [sample.facts["kind"] for sample in samples[:8]] == [*ASKED, *ASKED]
    assert samples[0].number == EVALUATION_SEED and samples[0] == task.sample(EVALUATION_SEED)
    for i in range(0, 12, 4):
        pixels = [np.asarray(sample.shown()[0]) for sample in samples[i : i + 4]]
        assert np.array_equal(pixels[0], pixels[1]) and np.array_equal(pixels[0], pixels[2])
        assert not np.array_equal(pixels[0], pixels[3])
    answers = {kind: Counter(s.answers[0] for s in samples if s.facts["kind"] == kind) for kind in ASKED}
    assert min(answers["existence"].values()) > 30 and set(answers["count"]) == set("1234")
    assert len(answers["colour"]) == 6 and len(answers["reading"]) > 25


def judged(image, kind, score):
    return Judged("", ("",), score, {"kind": kind, "image": image})


def test_colours_count_where_the_thing_was_recognised():
    task = find_task("patch_14")
    answers = [judged(0, "existence", 1.0), judged(0, "colour", 1.0), judged(0, "count", 0.0), judged(0, "reading", 1.0)]
    answers += [judged(1, "existence", 0.0), judged(1, "colour", 0.0), judged(1, "count", 1.0), judged(2, "colour", 1.0)]
    assert task.figures(answers) == {
        "existence": 50.0,
        "colour": pytest.approx(200 / 3),
        "colour where recognised": 100.0,
        "count": 50.0,
        "count where recognised": 0.0,
        "reading": 100.0,
    }
    assert task.figures([judged(1, "colour", 1.0)]) == {"colour": 100.0}


def test_an_answer_is_the_whole_reference():
    task, sample = find_task("patch"), find_task("patch").sample(EVALUATION_SEED + 1)
    assert task.score(f" {sample.answers[0]} ", sample) == 1 and task.score(f"{sample.answers[0]} x", sample) == 0

import numpy as np
import pytest

from laconic.tasks.video.clips import FRAMES, film
from laconic.tasks.video.questions import EVALUATION_SEED, QUESTIONS, pose
from laconic.tasks.video.tasks import CLIP_TASKS


@pytest.mark.parametrize("task", CLIP_TASKS[::3], ids=lambda task: task.name)
def test_a_task_asks_what_the_testbed_asks(task):
    clip, question = pose(task.kind, EVALUATION_SEED + 5, task.frames)
    sample = task.sample(EVALUATION_SEED + 5)
    assert (sample.task, sample.question, sample.answers) == (task.name, question.text, (question.answer,))
    assert np.array_equal(sample.shown()[0], film(clip)) and task.modality == "video"
    assert task.score(f" {question.answer}\n", sample) == 1 and task.score(f"{question.answer} x", sample) == 0


def test_there_is_a_task_for_each_kind_and_length_and_their_data_differ():
    assert [(task.kind, task.frames) for task in CLIP_TASKS] == [(kind, n) for kind in QUESTIONS for n in FRAMES]
    assert len({task.data for task in CLIP_TASKS}) == len(CLIP_TASKS)

import numpy as np
import pytest

from laconic.tasks.audio.questions import EVALUATION_SEED, QUESTIONS, pose
from laconic.tasks.audio.sounds import render
from laconic.tasks.audio.tasks import NEW_TOKENS, SOUND_TASKS


@pytest.mark.parametrize("task", SOUND_TASKS, ids=lambda task: task.name)
def test_a_task_asks_what_the_testbed_asks(task):
    clip, question = pose(task.kind, EVALUATION_SEED + 5)
    sample = task.sample(EVALUATION_SEED + 5)
    assert (sample.task, sample.question, sample.answers) == (f"sound_{task.kind}", question.text, (question.answer,))
    assert np.array_equal(sample.shown()[0], render(clip)) and task.count is None and task.modality == "audio"
    answer = question.answer
    assert task.score(f" {answer}\n", sample) == 1 and task.score(f"{answer} x", sample) == 0
    assert len(answer) < NEW_TOKENS or not answer.isdigit()


def test_there_is_a_task_for_each_kind_and_their_data_differ():
    assert [task.kind for task in SOUND_TASKS] == list(QUESTIONS)
    assert len({task.data for task in SOUND_TASKS}) == len(SOUND_TASKS)

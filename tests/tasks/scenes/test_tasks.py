import pytest

from laconic.tasks import find_task
from laconic.tasks.scenes.questions import EVALUATION_SEED, pose
from laconic.tasks.scenes.tasks import KINDS, SCENE_TASKS


@pytest.mark.parametrize("size", [96, 192])
@pytest.mark.parametrize("kind", KINDS)
def test_a_task_asks_what_the_testbed_asks(kind, size):
    task, (_, question) = find_task(kind if size == 96 else f"large_{kind}"), pose(kind, EVALUATION_SEED + 5, size)
    sample = task.sample(EVALUATION_SEED + 5)
    assert (sample.task, sample.question, sample.answers) == (task.name, question.text, (question.answer,))
    assert sample.shown()[0].size == (size, size) and task.count is None
    answer = question.answer
    assert task.score(f" {answer}\n", sample) == 1 and task.score(f"{answer} x", sample) == 0


def test_the_data_differ_from_task_to_task():
    assert len({task.data for task in SCENE_TASKS}) == len(SCENE_TASKS)

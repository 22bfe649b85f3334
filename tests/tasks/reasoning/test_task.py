"""Reasoning tasks: samples by number, and what counts as right."""

import pytest

from laconic.tasks import find_task
from laconic.tasks.reasoning.task import REASONING_TASKS


@pytest.mark.parametrize("task", REASONING_TASKS, ids=lambda task: task.name)
def test_the_reference_answer_is_right_and_others_are_not(task):
    for number in task.numbers(0, 5):
        sample = task.sample(number)
        gold, (answer,) = sample.turns[0].gold, sample.answers
        assert task.score(gold, sample) == 1 and sample == task.sample(number)
        assert task.score(gold.replace("###", ""), sample) == 0  # an answer without a mark is none
        assert task.score(gold + "1", sample) == 0
        assert task.score(gold.partition("###")[0] + f"###{answer}1", sample) == 0


def test_they_are_found_by_name_and_styles_share_their_problems():
    terse, verbose = find_task("story_terse").sample(1_000_003), find_task("story_verbose").sample(1_000_003)
    assert terse.answers == verbose.answers and terse.facts == verbose.facts
    assert terse.question.replace("briefly", "carefully") == verbose.question
    assert len(verbose.turns[0].gold) >= len(terse.turns[0].gold)

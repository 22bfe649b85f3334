"""The shipped mixture: it knows its languages and finds needles."""

import pytest

import laconic
from laconic.tasks.task import EVALUATION_SEED
from laconic.tasks.text.languages import TAGS, TaggedNeedles
from laconic.testbed.evaluate import ask
from laconic.testbed.train_moe import read


@pytest.fixture(scope="module")
def moe():
    return laconic.load("testbed/moe")


def test_it_is_as_surprised_as_the_tables_are(moe):
    for language in range(len(TAGS)):
        found, known = read(*moe, language, 2)
        assert 0.9 < found / known < 1.06


def test_it_finds_needles(moe):
    task = TaggedNeedles(tokens=256, tokenizer=moe[1])
    drawn = [task.sample(EVALUATION_SEED + i) for i in range(5)]
    answers = ask(*moe, drawn, 1, prefix=False)
    assert sum(task.score(answer, sample, 1) for answer, sample in zip(answers, drawn, strict=True)) >= 4

import pytest

from laconic.tasks.scenes.questions import EVALUATION_SEED, make
from laconic.tasks.scenes.suite import KINDS, scenes


@pytest.mark.parametrize("size", [96, 192])
@pytest.mark.parametrize("kind", KINDS)
def test_a_suite_asks_what_the_testbed_asks(kind, size):
    suite, made = scenes(kind if size == 96 else f"large_{kind}"), make(kind, EVALUATION_SEED + 5, size)
    sample = suite.sample(EVALUATION_SEED + 5)
    assert (sample.question, sample.answers) == (made.question.text, (made.question.answer,))
    assert sample.image().size == (size, size) and suite.count is None
    answer = made.question.answer
    assert suite.score(f" {answer}\n", sample) == 1 and suite.score(f"{answer} x", sample) == 0

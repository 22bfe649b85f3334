import pytest
from PIL import Image

from laconic.tasks.sample import ImageSample, Judged, Suite, digest


def sample(number: int = 0, **facts) -> ImageSample:
    return ImageSample("t", number, f"what {number}?", ("yes",), lambda: Image.new("RGB", (4, 4)), facts)


@pytest.mark.parametrize(
    ("first", "count", "samples", "offset", "numbers"),
    [(0, 5, 3, 0, [0, 1, 2]), (0, 5, 9, 3, [3, 4]), (0, 5, 9, 5, []), (100, None, 2, 7, [107, 108])],
)
def test_numbers_start_behind_the_offset_and_end_with_the_file(first, count, samples, offset, numbers):
    suite = Suite("t", first, count, sample, lambda output, sample: 1.0, 4, "")
    assert list(suite.numbers(samples, offset)) == numbers


def test_the_digest_sees_questions_answers_and_facts():
    assert digest([sample(0)]) == digest([sample(0)])
    assert len({digest([sample(0)]), digest([sample(1)]), digest([sample(0, x=1)]), digest([])}) == 4


def test_an_answer_comes_back_from_its_row():
    row = {"output": ["Yes"], "answers": [["yes", "y"]], "score": 0.5, "facts": {"category": "x"}}
    assert Judged.of(row) == Judged("Yes", ("yes", "y"), 0.5, {"category": "x"})

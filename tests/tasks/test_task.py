from dataclasses import dataclass

import pytest
from PIL import Image

from laconic.tasks import Judged, Sample, Task, Turn
from laconic.tasks.task import EVALUATION_SEED, about_image, digest


def sample(number: int = 0, **facts) -> Sample:
    return about_image("t", number, f"what {number}?", ["yes"], lambda: Image.new("RGB", (4, 4)), facts)


@dataclass(frozen=True)
class Half(Task):
    """Scores 0.5 for every answer but the reference."""

    start: int = EVALUATION_SEED
    held: int | None = None

    @property
    def first(self) -> int:
        return self.start

    @property
    def count(self) -> int | None:
        return self.held

    def sample(self, number: int) -> Sample:
        return sample(number)

    def score(self, answer, sample, turn=0):
        return 1.0 if answer in sample.turns[turn].answers else 0.5


@pytest.mark.parametrize(
    ("first", "count", "samples", "offset", "numbers"),
    [(0, 5, 3, 0, [0, 1, 2]), (0, 5, 9, 3, [3, 4]), (0, 5, 9, 5, []), (100, None, 2, 7, [107, 108])],
)
def test_numbers_start_after_the_offset_and_end_with_the_file(first, count, samples, offset, numbers):
    task = Half("t", first, count)
    assert list(task.numbers(offset, samples)) == numbers
    assert task.samples(offset, samples) == [sample(number) for number in numbers]


def test_samples_are_of_evaluation_seeds_unless_the_task_says_otherwise():
    assert [x.number for x in Half("t").samples(2, 2)] == [EVALUATION_SEED + 2, EVALUATION_SEED + 3]


def test_an_answer_is_exact_when_its_score_is_full():
    task = Half("t")
    assert (task.exact("yes", sample()), task.exact("no", sample())) == (1.0, 0.0)


def test_a_task_of_text_has_one_question_and_no_figures_of_its_own():
    task = Half("t")
    assert (task.modality, task.single_turn, task.several_turns, task.from_files) == ("text", True, False, False)
    assert task.opened(512, object()) is task and task.figures([]) == {} and task.data == ""


def test_a_sample_opens_its_media_when_asked():
    opened = []
    shown = Sample("t", 0, (Turn("?", ("a",)),), media=(lambda: opened.append(1) or "x", lambda: "y"))
    assert not opened and shown.shown() == ["x", "y"] and opened == [1]
    assert (shown.question, shown.answers) == ("?", ("a",))


def test_the_digest_sees_questions_answers_and_facts():
    assert digest([sample(0)]) == digest([sample(0)])
    assert len({digest([sample(0)]), digest([sample(1)]), digest([sample(0, x=1)]), digest([])}) == 4


def test_an_answer_comes_back_from_its_row():
    row = {"output": ["Yes"], "answers": [["yes", "y"]], "score": 0.5, "facts": {"category": "x"}}
    assert Judged.of(row) == Judged("Yes", ("yes", "y"), 0.5, {"category": "x"})

import pytest
from helpers import image_formats as formats

from laconic.tasks import Judged
from laconic.tasks.public import scienceqa


def test_test_questions_with_an_image_are_read(tmp_path):
    samples = scienceqa.read(formats.scienceqa(tmp_path))
    assert [s.answers[0] for s in samples] == ["B", "C"]
    asked = "And this?\nA. Maine\nB. Ohio\nC. Utah\nAnswer with the option's letter from the given choices directly."
    assert samples[1].question == asked
    assert samples[0].question.startswith("Context: Look north.\nWhich state?\nA. Maine")


@pytest.mark.parametrize(
    ("output", "letter"),
    [
        ("B", "B"),
        (" B\n", "B"),
        ("B. Ohio", "B"),
        ("The answer is B.", "B"),
        ("I say: The answer is C. Yes", "C"),
        ("B) Ohio", None),
        ("b", None),
        ("Ohio", None),
        ("The answer is A. The answer is B.", None),
        ("", None),
        ("AB", None),
    ],
)
def test_the_letter_is_taken_out(output, letter):
    assert scienceqa.letter(output) == letter


def test_what_is_not_understood_is_wrong(tmp_path):
    sample = scienceqa.read(formats.scienceqa(tmp_path))[0]
    assert [scienceqa.score(output, sample) for output in ("B", "A", "Ohio")] == [1, 0, 0]
    assert scienceqa.official([Judged("", (), score, {}) for score in (1, 0, 0, 0)]) == {"img accuracy": 25}

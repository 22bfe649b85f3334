import pytest
from helpers import image_formats as formats

from laconic.tasks import Judged
from laconic.tasks.files import FormatError
from laconic.tasks.public import gqa


def test_questions_are_read(tmp_path):
    samples = gqa.read(formats.gqa(tmp_path))
    assert [(s.answers[0], s.facts["kind"]) for s in samples] == [("yes", "binary"), ("car", "open"), ("left", "binary")]
    assert samples[1].question == "What is it?\nAnswer the question using a single word or phrase."


def test_a_missing_image_is_said(tmp_path):
    (formats.gqa(tmp_path) / "images" / "n2.jpg").unlink()
    with pytest.raises(FormatError, match=r"n2\.jpg"):
        gqa.read(tmp_path)


@pytest.mark.parametrize(
    ("output", "right"), [("Car.", 1), ("car", 1), ("CAR..", 1), ("a car", 0), ("cars", 0), ("car!", 0)]
)
def test_the_answer_is_the_reference_letter_by_letter(tmp_path, output, right):
    assert gqa.score(output, gqa.read(formats.gqa(tmp_path))[1]) == right


def test_accuracies():
    answers = [Judged("", (), score, {"kind": kind}) for score, kind in ((1, "open"), (0, "open"), (1, "binary"))]
    assert gqa.official(answers) == pytest.approx({"accuracy": 200 / 3, "open": 50, "binary": 100})
    assert gqa.official([Judged("", (), 1, {"kind": None})]) == {"accuracy": 100}

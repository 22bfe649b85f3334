import pytest
from helpers import image_formats as formats

from laconic.tasks import Judged
from laconic.tasks.files import FormatError
from laconic.tasks.public import mme


def test_both_layouts_are_read(tmp_path):
    samples = mme.read(formats.mme(tmp_path))
    found = [(s.facts["category"], s.facts["image"], s.answers[0]) for s in samples]
    assert found == [
        *[("count", name, answer) for name in ("0001", "0002") for answer in ("Yes", "No")],
        *[("artwork", "7", "Yes"), ("artwork", "7", "No"), ("code_reasoning", "3", "Yes"), ("code_reasoning", "3", "No")],
    ]
    assert [s.number for s in samples] == list(range(8))
    assert samples[0].question == "Is there one dog? Please answer yes or no."
    assert samples[0].shown()[0].size == (20, 12)


def test_a_text_without_its_image_is_said(tmp_path):
    (formats.mme(tmp_path) / "count" / "0002.png").unlink()
    with pytest.raises(FormatError, match=r"0002\.txt"):
        mme.read(tmp_path)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("nope", "no"),
        ("eyes", "yes"),
        ("Not sure", "no"),
        ("The", "other"),
        ("Yes", "yes"),
        ("no.", "no"),
        ("Yes, there is", "yes"),
        ("  No, not", "no"),
        ("I think yes", "other"),
        ("", "other"),
    ],
)
def test_the_word_is_looked_for_in_the_first_four_characters(output, said):
    assert mme.said(output) == said


def test_points_by_hand():
    """Three images of one subtask: both right, one right, none right: accuracy 3/6, accuracy+ 1/3, 83.33 points."""

    def pair(image, *scores, category="existence"):
        return [Judged("", ("yes",), score, {"category": category, "image": image}) for score in scores]

    answers = [*pair("a", 1, 1), *pair("b", 1, 0), *pair("c", 0, 0)]
    answers += [*pair("a", 1, 1, category="OCR"), *pair("a", 0, 1, category="code_reasoning"), *pair("z", 1)]
    found = mme.official(answers)
    assert found["existence"] == pytest.approx(50 + 100 / 3) and found["OCR"] == 200 and found["code_reasoning"] == 50
    assert found["perception"] == pytest.approx(250 + 100 / 3) and found["cognition"] == 50
    assert found["existence acc"] == 50 and found["existence acc+"] == pytest.approx(100 / 3)


def test_a_subtask_that_was_not_run_has_no_figure():
    assert mme.official([Judged("", ("yes",), 1, {"category": "count", "image": "a"})]) == {}

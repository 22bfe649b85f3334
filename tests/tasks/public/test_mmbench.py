import pytest
from helpers import image_formats as formats

from laconic.tasks import Judged
from laconic.tasks.files import FormatError
from laconic.tasks.public import mmbench

OPTIONS = {"A": "cat", "B": "dog", "C": "cow"}


def test_a_plain_file(tmp_path):
    samples = mmbench.read(formats.mmbench(tmp_path))
    asked = "A hint.\nWhat is it?\nA. cat\nB. dog\nC. cow\nAnswer with the option's letter from the given choices directly."
    assert samples[0].question == asked and samples[0].answers == ("B",)
    assert samples[1].facts["options"] == {"A": "yes", "B": "no"}  # "nan" is no option
    assert samples[0].shown()[0].getpixel((0, 0)) == (0, 0, 255)


def test_a_circular_file_has_its_passes_together(tmp_path):
    samples = mmbench.read(formats.mmbench(tmp_path, circular=True))
    assert [(s.facts["question"], s.answers[0]) for s in samples] == [(241, x) for x in "BAC"] + [(252, x) for x in "AB"]
    assert samples[1].shown()[0].size == (20, 12)  # the pass names the row that holds the image


def test_a_file_without_the_columns_is_said(tmp_path):
    (tmp_path / "x.tsv").write_text("index\tquestion\n1\twhat\n")
    with pytest.raises(FormatError, match="lacks one of the columns"):
        mmbench.read(tmp_path)


@pytest.mark.parametrize(
    ("output", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(B) dog", "B"),
        ("B. dog", "B"),
        ("Answer: B", "B"),
        ("a dog", "B"),
        ("DOG", "B"),
        ("A or B", None),
        ("b", None),
        ("D", None),
        ("", None),
        ("cat and dog", None),
        ("Both", None),
    ],
)
def test_one_letter_or_one_option_is_named(output, letter):
    assert mmbench.letter(output, OPTIONS) == letter


def judged(question, score, ability=None):
    return Judged("", (), score, {"question": question, "ability": ability})


def test_a_question_is_right_if_all_its_passes_are():
    answers = [judged(1, 1), judged(1, 1), judged(2, 1), judged(2, 0), judged(2, 1), judged(3, 0)]
    assert mmbench.official(answers) == pytest.approx({"accuracy": 100 / 3, "passes": 400 / 6})


def test_a_plain_file_counts_rows():
    found = mmbench.official([judged(1, 1, "coarse"), judged(2, 0, "coarse"), judged(3, 1, "logic"), judged(4, 1, None)])
    assert found == {"accuracy": 75, "coarse": 50, "logic": 100}

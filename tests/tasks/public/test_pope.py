import pytest
from helpers import image_formats as formats

from laconic.tasks import Judged
from laconic.tasks.files import FormatError
from laconic.tasks.public import pope


def test_files_are_read_with_their_category(tmp_path):
    samples = pope.read(formats.pope(tmp_path))
    assert [s.facts["category"] for s in samples] == ["popular"] * 3 + ["random"] * 3
    assert [s.answers[0] for s in samples[:3]] == ["yes", "no", "yes"]
    assert samples[0].question == "Is there a thing 0?\nAnswer the question using a single word or phrase."
    assert samples[5].shown()[0].size == (20, 12)


def test_a_missing_image_is_said(tmp_path):
    (formats.pope(tmp_path) / "val2014" / "COCO_val2014_1.jpg").unlink()
    with pytest.raises(FormatError, match=r"COCO_val2014_1\.jpg"):
        pope.read(tmp_path)


@pytest.mark.parametrize(
    ("output", "said"),
    [("No", "no"), ("no, there is", "no"), ("There is not. Yes", "no"), ("Yes. No", "yes"), ("NO", "yes"), ("None", "yes")],
)
def test_no_is_a_word_of_the_first_sentence(output, said):
    assert pope.said(output) == said


def test_figures_by_hand():
    """4 right yes, 1 wrong yes, 3 right no, 2 wrong no."""
    given = [("Yes", "yes")] * 4 + [("Yes", "no")] + [("No", "no")] * 3 + [("No", "yes")] * 2
    answers = [Judged(output, (label,), 0, {"category": "random"}) for output, label in given]
    found = pope.official(answers)
    assert found == pytest.approx(
        {
            "accuracy": 70,
            "precision": 80,
            "recall": 100 * 4 / 6,
            "f1": 100 * 2 * 0.8 * (4 / 6) / (0.8 + 4 / 6),
            "yes ratio": 50,
        }
    )
    assert pope.official([Judged("No", ("yes",), 0, {"category": "random"})])["f1"] == 0


def test_categories_stand_beside_the_whole():
    answers = [Judged("Yes", ("yes",), 1, {"category": "random"}), Judged("Yes", ("no",), 0, {"category": "popular"})]
    found = pope.official(answers)
    assert found["accuracy"] == 50 and found["random accuracy"] == 100 and found["popular accuracy"] == 0

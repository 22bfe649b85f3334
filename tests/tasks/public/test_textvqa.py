import pytest
from helpers import image_formats as formats

from laconic.tasks.files import FormatError
from laconic.tasks.public import textvqa


def test_questions_are_read(tmp_path):
    samples = textvqa.read(formats.textvqa(tmp_path))
    assert [len(s.answers) for s in samples] == [10, 10]
    assert samples[0].question == "what does it say 0?\nAnswer the question using a single word or phrase."


def test_ten_answers_are_needed(tmp_path):
    path = formats.textvqa(tmp_path) / "TextVQA_0.5.1_val.json"
    path.write_text(path.read_text().replace('"the nokia"', '"nokia", "nokia"'))
    with pytest.raises(FormatError, match="has 11 answers"):
        textvqa.read(tmp_path)


@pytest.mark.parametrize(
    ("answer", "processed"),
    [
        ("The  Two Dogs", "2 dogs"),
        ("a", ""),
        ("none", "0"),
        ("eleven", "eleven"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("yall'll", "y'all'll"),
        ("somebody'd", "somebodyd"),
        ("Macy's", "macy 's"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("no. 5", "no 5"),
        ("5.", "5"),
        ("u.s.a.", "usa"),
        ("half-price", "half price"),
        ("half -price", "half price"),
        ("half- price", "half price"),
        ("a/b", "b"),  # the slash becomes a blank, and the article goes
        ("(yes)", "yes"),
        ("what?", "what"),
        ("one\ntwo\tthree", "1 2 3"),
        ("." * 34, ".."),  # the first 32 only
    ],
)
def test_answers_are_processed(answer, processed):
    assert textvqa.processed(answer) == processed


def slow(answers, output):
    """Every person is left out once: min(1, how many others said it / 3); the mean of that."""
    said = [textvqa.processed(answer) for answer in answers]
    told = textvqa.processed(output)
    if told not in said:
        return 0.0
    accuracies = []
    for left_out in range(10):
        others = said[:left_out] + said[left_out + 1 :]
        accuracies.append(min(1, sum(other == told for other in others) / 3))
    return sum(accuracies) / 10


@pytest.mark.parametrize("output", ["nokia", "Nokia.", "nokia phone", "samsung", "2", "two", "3", "4", "5", "6"])
def test_accuracy_leaves_one_person_out_at_a_time(tmp_path, output):
    for sample in textvqa.read(formats.textvqa(tmp_path)):
        assert textvqa.score(output, sample) == pytest.approx(slow(sample.answers, output))


def test_accuracies_by_hand(tmp_path):
    """Said by 9, 3, 4, 2 and 1 of ten: 1, 0.9, 1, 0.6, 0.3."""
    first, second = textvqa.read(formats.textvqa(tmp_path))
    assert textvqa.score("nokia", first) == 1 and textvqa.score("nokia phone", first) == pytest.approx(0.3)
    found = [textvqa.score(output, second) for output in ("2", "3", "4", "5", "6")]
    assert found == pytest.approx([0.9, 1, 0.6, 0.3, 0])

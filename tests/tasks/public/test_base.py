"""All benchmarks together: tasks from folders, and figures from rows."""

import pytest
from helpers import image_formats as formats

from laconic.tasks import Judged, find_task, list_tasks
from laconic.tasks.public import FormatError

PUBLIC = [task.name for task in list_tasks("image") if task.from_files]


def opened(name, folder):
    return find_task(name).opened(folder=folder)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_format_becomes_a_opened(name, tmp_path):
    found = opened(name, getattr(formats, name)(tmp_path))
    assert found.count and list(found.numbers(0, 10**9)) == list(range(found.count))
    assert found.sample(1).task == name and found.sample(1).number == 1
    assert found.data == opened(name, tmp_path).data


@pytest.mark.parametrize("name", PUBLIC)
def test_the_right_answers_score_one(name, tmp_path):
    found = opened(name, getattr(formats, name)(tmp_path))
    for number in range(found.count):
        sample = found.sample(number)
        best = max(found.score(answer, sample) for answer in sample.answers)
        assert best == 1 and found.score("gibberish", sample) == (name == "pope" and sample.answers[0] == "yes")


@pytest.mark.parametrize("name", PUBLIC)
def test_an_empty_folder_and_none_are_said(name, tmp_path):
    with pytest.raises(FormatError, match="holds no"):
        opened(name, tmp_path)
    with pytest.raises(FormatError, match="is not a folder"):
        opened(name, tmp_path / "none")
    with pytest.raises(FormatError, match="give the folder"):
        find_task(name).opened()
    with pytest.raises(FormatError, match="call opened"):
        find_task(name).samples(0, 1)


@pytest.mark.parametrize(
    ("name", "file", "old", "new"),
    [
        ("pope", "coco_pope_random.json", "{", "[1]\n{"),
        ("gqa", "testdev_balanced_questions.json", '"imageId"', '"image"'),
        ("scienceqa", "problems.json", '"choices"', '"options"'),
        ("textvqa", "TextVQA_0.5.1_val.json", '"data"', '"rows"'),
        ("mmbench", "mmbench_dev_en.tsv", "241", "first"),
    ],
)
def test_a_file_of_another_form_is_said(name, file, old, new, tmp_path):
    path = getattr(formats, name)(tmp_path) / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(FormatError):
        opened(name, tmp_path)


def test_other_questions_are_other_data(tmp_path):
    path = formats.gqa(tmp_path) / "testdev_balanced_questions.json"
    before = opened("gqa", tmp_path).data
    path.write_text(path.read_text().replace("Which?", "Where?"))
    assert opened("gqa", tmp_path).data != before


def test_figures_come_from_rows():
    rows = [{"output": ["Yes"], "answers": [["yes"]], "score": 1.0, "facts": {"category": "random"}}]
    judged = [Judged.of(row) for row in rows]
    assert find_task("pope").figures(judged)["accuracy"] == 100
    assert find_task("colour").figures(judged) == {}

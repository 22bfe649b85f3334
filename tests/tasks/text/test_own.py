"""A user's own questions: read as they are written, refused by line and field."""

import json
from pathlib import Path

import pytest

from laconic.tasks import Turn, find_task
from laconic.tasks.files import FormatError
from laconic.tasks.text.own import read

EXAMPLE = Path(__file__).parents[3] / "examples" / "questions.jsonl"
GOOD = {"context": "Anna has 3 goats.\n", "questions": [{"question": "How many goats?", "answers": ["3", "three"]}]}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "own.jsonl"


def test_one_sample_for_each_question(file):
    more = {"context": "Text with a\u2028separator.", "questions": [{"question": q, "answers": ["x"]} for q in "ab"]}
    file.write_text("\ufeff" + "\n\n".join(json.dumps(d, ensure_ascii=False) for d in (GOOD, more)) + "\n", encoding="utf-8")
    task = find_task("own").opened(folder=file)
    assert (task.count, task.first, task.modality, task.from_files) == (3, 0, "text", True)
    first, second, third = task.samples(0, 10)
    assert first.turns == (Turn("How many goats?", ("3", "three")),) and first.context == "Anna has 3 goats."
    assert [second.question, third.question] == ["a", "b"] and second.context == third.context == more["context"]
    assert [s.number for s in (first, second, third)] == [0, 1, 2]
    assert [s.facts for s in (first, second, third)] == [{"line": 1}, {"line": 3}, {"line": 3}]
    assert task.samples(1, 1) == [second] and task.opened(tokens=512) is task


def test_any_of_the_answers_counts(file):
    file.write_text(json.dumps(GOOD), encoding="utf-8")
    task = find_task("own").opened(folder=file)
    (sample,) = task.samples(0, 1)
    found = [task.score(text, sample) for text in ("There are 3.", "THREE goats", "Four")]
    assert found == [1, 1, 0] and task.exact("three", sample) == 1


def test_other_texts_are_other_data(file):
    seen = set()
    for context in ("a", "b"):
        file.write_text(json.dumps(GOOD | {"context": context}), encoding="utf-8")
        seen.add(find_task("own").opened(folder=file).data)
    assert len(seen) == 2 and all(len(x) == 12 for x in seen)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 2 is not JSON .*each line is one document"),
        ("[]", "line 2 must be an object with the fields context and questions, not list"),
        ({"questions": []}, "line 2 has no field 'context'"),
        (GOOD | {"question": "?"}, "line 2 has an unknown field 'question'"),
        (GOOD | {"context": 3}, "line 2: context must be a text that is not empty, not 3"),
        (GOOD | {"context": " "}, "line 2: context must be a text"),
        (GOOD | {"questions": []}, "line 2: questions must be a list of at least one"),
        (GOOD | {"questions": ["?"]}, "line 2: question 1 must be an object with the fields question and answers"),
        (GOOD | {"questions": GOOD["questions"] + [{"question": "?"}]}, "line 2: question 2 has no field 'answers'"),
        (GOOD | {"questions": [{"question": "?", "answers": "3"}]}, "question 1: answers must be a list"),
        (GOOD | {"questions": [{"question": "?", "answers": []}]}, "question 1: answers must be a list of at least one"),
        (GOOD | {"questions": [{"question": "?", "answers": [3]}]}, "question 1: answers must be a text .* not 3"),
        (GOOD | {"questions": [{"question": "", "answers": ["3"]}]}, "question 1: question must be a text"),
    ],
)
def test_errors_name_line_and_field(file, line, message):
    second = line if isinstance(line, str) else json.dumps(line)
    file.write_text(f"{json.dumps(GOOD)}\n{second}\n", encoding="utf-8")
    with pytest.raises(FormatError, match=message):
        read(file)


def test_files_that_cannot_be_read(file):
    with pytest.raises(FormatError, match="cannot be read: No such file"):
        read(file)
    file.write_bytes(b"ab\xff")
    with pytest.raises(FormatError, match="is not UTF-8: byte 0xff at offset 2"):
        read(file)
    file.write_text("\n")
    with pytest.raises(FormatError, match="holds no document"):
        read(file)
    with pytest.raises(FormatError, match="call opened"):
        find_task("own").sample(0)


def test_the_example_is_one():
    samples = read(EXAMPLE)
    assert len({sample.context for sample in samples}) == 2 and len(samples) == 10
    assert all(any(a in sample.context for a in sample.answers) for sample in samples)

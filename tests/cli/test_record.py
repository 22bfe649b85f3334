"""The JSON of a run: stable keys, and where two answers part."""

import json

import pytest

from laconic.cli.answering import compressed, stock
from laconic.cli.options import Options
from laconic.cli.question import question_of
from laconic.cli.record import first_difference, record


@pytest.fixture(scope="module")
def question(model):
    options = Options(model=model, question="What is the code?", method=["snapkv:window=4"], keep=0.5, max_new_tokens=3)
    return question_of(options, "The code for falcon is 4815263. " * 4)


def test_a_run_is_plain_json_beside_the_uncompressed_one(question):
    run, full = compressed(question), stock(question)
    found = json.loads(json.dumps(record(question, run, full)))
    assert found["answer"] == run.answer.text and found["mode"] == "in view" and "images" not in found
    assert found["methods"][0]["name"] == "snapkv" and found["methods"][0]["parameters"]["window"] == 4
    assert found["methods"][0]["budget"]["keep"] == 0.5
    assert found["prompt"]["tokens"] == found["prompt"]["context_tokens"] + found["prompt"]["question_tokens"]
    assert [entry["layer"] for entry in found["entries"]] == found["layers"] == [0, 1, 2]
    assert found["kv_bytes"] < found["compared"]["kv_bytes"] == found["kv_bytes_full"]
    assert found["compared"]["agree"] is (found["compared"]["first_difference"] is None)
    alone = record(question, run, None)
    assert alone["compared"] is None and alone.keys() == found.keys()


def test_where_answers_part():
    assert first_difference([1, 2], [1, 2]) is None
    assert first_difference([1, 2], [1, 3]) == 1
    assert first_difference([1, 2], [1, 2, 3]) == 2 and first_difference([], [1]) == 0

"""From options to a question that is ready to be asked."""

import pytest

from laconic.cli.common import InputError
from laconic.cli.options import Options
from laconic.cli.question import check_length, question_of, request_of


def test_a_request_says_what_the_options_say():
    request = request_of(
        Options(question="Where?", protect=["system", "10:20"], max_new_tokens=3, temperature=0.5, seed=7, system="Short.")
    )
    assert (request.question, request.protect, request.max_new_tokens) == ("Where?", ["system", (10, 20)], 3)
    assert (request.sample, request.temperature, request.seed, request.mode) == (True, 0.5, 7, "in view")
    assert request_of(Options(context="notes.txt", later=True)).mode == "later"


def test_the_prompt_is_built_once_and_other_methods_get_the_same_one(model):
    question = question_of(Options(model=model, question="Where?", method=["random"], keep=0.5), "Here.")
    assert [str(m) for m in question.methods] == ["random(keep=0.5, seed=0)"] and not question.later
    assert question.prompt.text and question.engine.prompt(question.request) is question.prompt
    other = question.with_methods([])
    assert other.methods == [] and other.prompt is question.prompt and question.methods


def test_what_comes_later_needs_something_before_it(plain_model, context):
    with pytest.raises(InputError, match="needs a context and a question after it"):
        question_of(Options(model=plain_model, context=context, later=True), "Here.")


def test_no_such_model_and_no_such_device(model, tmp_path):
    with pytest.raises(InputError, match=f"cannot load --model {tmp_path}"):
        question_of(Options(model=str(tmp_path), question="Where?"), "")
    with pytest.raises(InputError, match=f"cannot load --model {model}"):
        question_of(Options(model=model, question="Where?", device="nowhere"), "")


def test_long_prompts_are_warned_about(short_model):
    options = Options(model=short_model, question="Where?", max_new_tokens=4)
    question = question_of(options, "x" * 200)
    assert len(options.warnings) == 1 and "the model has 128 positions" in options.warnings[0]
    options = Options(model=short_model, question="Where?", max_new_tokens=4)
    check_length(options, question.engine, question_of(options, "x").prompt)
    assert options.warnings == []

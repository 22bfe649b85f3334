"""An answer of the command line is that of the engine, beside what the cache held when the prompt had been read."""

import pytest

from laconic.cli.answering import compressed, faster, stock
from laconic.cli.options import Options
from laconic.cli.question import question_of
from laconic.session import Session


@pytest.fixture(scope="module")
def question(model):
    options = Options(model=model, question="What is the code?", method=["random"], keep=0.5, max_new_tokens=4)
    return question_of(options, "The code for falcon is 4815263. " * 4)


def test_entries_are_those_of_the_prompt(question):
    seen, pieces = [], []
    run = compressed(question, pieces.append, lambda session: seen.append(session.stats.entries))
    half = question.prompt.tokens // 2
    assert run.entries == [(half, half, half)] * 3 and seen == [[half] * 3]
    assert run.answer.ids == question.engine.answer(question.request).ids and "".join(pieces) == run.answer.text
    assert isinstance(run.session, Session) and run.final.tokens_out == 3 and run.visual is None
    assert run.decode_seconds_per_token == run.final.decode_seconds / 3
    assert run.prefill_seconds == run.final.prefill_seconds > 0


def test_the_stock_model_beside_it(question):
    run = stock(question)
    assert run.answer.ids == compressed(question.with_methods([])).answer.ids and run.entries == []
    with pytest.raises(AssertionError):
        run.session  # noqa: B018  only a compressed run has one


def test_warnings_of_a_run_are_the_users(question):
    question.options.warnings.clear()

    class Misses(type(question.methods[0])):
        def targets(self, *args):
            return [2 * target for target in super().targets(*args)]

    compressed(question.with_methods([Misses(keep=0.25)]))
    assert len(question.options.warnings) == 1 and "was asked to keep" in question.options.warnings[0]


def test_the_faster_times_of_two_runs(question):
    a, b = (compressed(question.with_methods([])) for _ in range(2))
    a.final.prefill_seconds, a.prefill_seconds, a.final.compress_seconds, a.final.decode_seconds = 3.0, 2.5, 0.3, 1.0
    b.final.prefill_seconds, b.prefill_seconds, b.final.compress_seconds, b.final.decode_seconds = 2.0, 1.5, 0.2, 4.0
    for both in (faster(a, b), faster(b, a)):
        assert (both.final.prefill_seconds, both.prefill_seconds, both.final.compress_seconds) == (2.0, 1.5, 0.2)
        assert both.final.decode_seconds == 1.0 and both.timed == 2 and both.answer.ids == a.answer.ids
    b.answer.ids.append(7)
    assert faster(a, b) is a  # another answer is other work

"""What the examiner calls the same answer is the answer that `generate()` gives on the compressed cache."""

from copy import copy

import pytest
from helpers.bench_tools import tiny, written

from laconic.bench.pick.examiner import TIMED, Document
from laconic.engine.engine import Engine, Request
from laconic.method import create_method
from laconic.tasks import Turn

CONTEXT = "The code for falcon is 4815263. The code for heron is 1623421. " * 4
QUESTIONS = ["What is the code for falcon?", "And for heron?", "Which animals are there?", "Is there a code for otters?"]


@pytest.fixture(scope="module")
def engine():
    return Engine(*tiny())


@pytest.fixture(scope="module")
def document(engine):
    """Its right answers are the first tokens that the model really writes, but for the third question."""
    turns = []
    for i, question in enumerate(QUESTIONS):
        turns.append(Turn(question, ("no such answer" if i == 2 else written(engine, CONTEXT, question),)))
    return Document(engine, CONTEXT, turns)


def test_only_what_the_uncompressed_model_answers_is_known(engine, document):
    assert list(document.golds) == [0, 1, 3] and document.asked == 4
    for number, gold in document.golds.items():
        answer = engine.answer(Request(context=CONTEXT, question=QUESTIONS[number], methods=(), max_new_tokens=8))
        right = document.turns[number].answers[0]
        assert gold == answer.ids[: len(gold)]
        assert right in engine.tokenizer.decode(gold).lower() and right not in engine.tokenizer.decode(gold[:-1]).lower()
    own = document.uncompressed
    assert own.same == {0: True, 1: True, 3: True} and own.kv_bytes == own.kv_bytes_full


@pytest.mark.parametrize("mode", ["later", "in view"])
@pytest.mark.parametrize("method", ["random", "knorm", "adakv:over=model,scorer=knorm", "tova", "streaming_llm"])
@pytest.mark.parametrize("keep", [1.0, 0.5, 0.1])
def test_the_verdict_is_that_of_generate(engine, document, mode, method, keep):
    """Of whole answers, and of their first tokens alone."""
    short = copy(document)
    short.golds = {number: gold[:1] for number, gold in document.golds.items()}
    found, begun = (one.ask(create_method(method, keep=keep), mode) for one in (document, short))
    live, first = {}, {}
    for number, gold in document.golds.items():
        request = Request(
            context=CONTEXT,
            question=QUESTIONS[number],
            methods=[create_method(method, keep=keep)],
            mode=mode,
            max_new_tokens=8,
        )
        answer = engine.answer(request)
        live[number], first[number] = answer.ids[: len(gold)] == gold, answer.ids[:1] == gold[:1]
    assert found.same == live and begun.same == first and (keep < 1 or all(live.values()))
    read = len(document.prompts[0].context) if mode == "later" else document.prompts[0].tokens
    assert found.kv_bytes / found.kv_bytes_full == pytest.approx(keep, abs=1.5 / read)
    times = document.timed(create_method(method, keep=keep), mode)
    assert found.seconds > 0 and times.read > 0 and times.token > 0


@pytest.mark.parametrize(("mode", "more"), [("in view", 0), ("later", TIMED)])
def test_timed_tokens_are_decoded_as_those_of_an_answer_are(document, monkeypatch, mode, more):
    """With the question in view the method evicts meanwhile; an answer about a context of its own is stored whole."""
    sessions, opened = [], Document._session
    monkeypatch.setattr(Document, "_session", lambda self, method: sessions.append(opened(self, method)) or sessions[-1])
    document.timed(create_method("tova", tokens=16), mode)
    assert {int(layer.stored) for layer in sessions[0].cache.layers} == {16 + more}


def test_answers_differ_at_small_budgets(document):
    """Else the test above would say nothing."""
    found = [document.ask(create_method("random", keep=0.1), mode).same for mode in ("later", "in view")]
    assert not all(all(same.values()) for same in found)


def test_some_questions_in_view(document):
    assert list(document.ask(create_method("random", keep=0.5), "in view", [3]).same) == [3]

"""A batch answers as each request alone: padded prompts, questions to one context, and any mixture of settings."""

import pytest
import torch
from helpers.bench_tools import tiny
from helpers.method_tools import method

from laconic.engine.engine import Engine, Request
from laconic.serve.worker.batch import answer, padded
from laconic.serve.worker.rows import Row
from laconic.serve.worker.sampling import Sampling
from laconic.session import Session

CONTEXT = "The code for falcon is 4815263. The code for heron is 1623421. " * 4
QUESTIONS = ("What is the code for falcon?", "And heron?", "Which birds are there, and which codes do they have?")


@pytest.fixture(scope="module")
def engine():
    return Engine(*tiny())


def rows_of(prompts, room=8, **settings):
    return [Row(str(i), 0, ids, Sampling(**{"temperature": 0, **settings}), room) for i, ids in enumerate(prompts)]


def run(engine, rows, context=None, methods=()):
    pieces = {}

    def on_piece(row, text, tokens):
        pieces[row.request] = pieces.get(row.request, "") + text

    session = Session(engine.model, methods) if context is None else context.session
    return answer(session, engine.tokenizer, rows, on_piece, context), pieces


def test_padding_stands_after_what_is_shared():
    ids, mask = padded([[1, 2, 3], [1, 2, 3, 4, 5]], 2, 0)
    assert ids.tolist() == [[1, 2, 0, 0, 3], [1, 2, 3, 4, 5]]
    assert mask.tolist() == [[1, 1, 0, 0, 1], [1, 1, 1, 1, 1]]
    ids, mask = padded([[7], [8, 9]], 0, 0)
    assert ids.tolist() == [[0, 7], [8, 9]] and mask.tolist() == [[0, 1], [1, 1]]


def test_one_request_is_answered_as_the_engine_answers_it(engine):
    request = Request(question=QUESTIONS[0], max_new_tokens=8)
    want, prompt = engine.answer(request), engine.prompt(request)
    rows = rows_of([prompt.ids])
    figures, pieces = run(engine, rows)
    assert rows[0].tokens == want.ids and pieces["0"] == want.text
    assert figures.kept == [len(prompt.ids)] and figures.kv_bytes == [want.prompt.kv_bytes] == figures.kv_bytes_full


@pytest.mark.parametrize("name", [None, "keydiff", "snapkv"])
def test_a_batch_of_prompts_is_answered_as_each_alone(engine, name):
    methods = [] if name is None else [method(name, keep=0.5)]
    prompts = [engine.prompt(Request(context=CONTEXT[: 80 * i], question=q)).ids for i, q in enumerate(QUESTIONS, 1)]
    alone = rows_of(prompts)
    single = [run(engine, [row], methods=methods)[0] for row in alone]
    together = rows_of(prompts)
    figures, _ = run(engine, together, methods=methods)
    assert [row.tokens for row in together] == [row.tokens for row in alone]
    assert figures.kept == pytest.approx([one.kept[0] for one in single])
    assert figures.kv_bytes == [one.kv_bytes[0] for one in single]
    assert figures.kv_bytes_full == [one.kv_bytes_full[0] for one in single]


@pytest.mark.parametrize("name", ["keydiff", "snapkv", "adakv"])
def test_questions_to_one_context_are_answered_as_each_alone(engine, name):
    context = engine.read(Request(context=CONTEXT, methods=[method(name, keep=0.5)]))
    want = [context.ask(question, max_new_tokens=8) for question in QUESTIONS]
    rows = rows_of([context.prompt(question).ids for question in QUESTIONS])
    figures, _ = run(engine, rows, context)
    assert [row.tokens for row in rows] == [one.ids for one in want]
    assert context.cache.seen == len(context.ids)
    kept = [sum(one.prompt.entries) / len(one.prompt.entries) for one in want]
    assert figures.kept == pytest.approx(kept)


def test_settings_are_a_row_s_own(engine):
    ids = engine.prompt(Request(question=QUESTIONS[0])).ids
    settings = [Sampling(temperature=0), Sampling(seed=3), Sampling(seed=4, top_p=0.5, temperature=1.5)]
    together = [Row(str(i), 0, ids, one, 5 + i) for i, one in enumerate(settings)]
    alone = [Row(str(i), 0, ids, one, 5 + i) for i, one in enumerate(settings)]
    run(engine, together)
    for row in alone:
        run(engine, [row])
    assert [row.tokens for row in together] == [row.tokens for row in alone]
    assert [len(row.tokens) for row in together] == [5, 6, 7] and {row.finish for row in together} == {"length"}


def test_rows_end_one_by_one(engine):
    ids = engine.prompt(Request(question=QUESTIONS[0])).ids
    rows = rows_of([ids, ids, ids], room=6)
    rows[0].deadline = 0.0
    rows[2].stops = [engine.tokenizer.decode(engine.answer(Request(question=QUESTIONS[0], max_new_tokens=3)).ids[2:])]
    seen = []

    def on_piece(row, text, tokens):
        seen.append((row.request, row.finish))
        if row.request == "1" and len(row.tokens) >= 1:
            row.cancelled = True

    answer(Session(engine.model), engine.tokenizer, rows, on_piece)
    assert [row.finish for row in rows] == ["deadline", "cancelled", "stop"]
    assert len(rows[0].tokens) == 1 and len(rows[1].tokens) == 2 and len(rows[2].tokens) <= 3
    assert [x for x in seen if x[1]] == [("0", "deadline"), ("1", "cancelled"), ("2", "stop")]


def test_the_model_is_as_it_was_after_an_error(engine):
    rows = rows_of([engine.prompt(Request(question=QUESTIONS[0])).ids])

    def breaks(row, text, tokens):
        raise RuntimeError("broken pipe")

    with pytest.raises(RuntimeError, match="broken pipe"):
        answer(Session(engine.model), engine.tokenizer, rows, breaks)
    again = rows_of([rows[0].prompt])
    run(engine, again)
    assert again[0].tokens == engine.answer(Request(question=QUESTIONS[0], max_new_tokens=8)).ids


def test_log_probabilities_are_those_of_the_model(engine):
    ids = engine.prompt(Request(question=QUESTIONS[0])).ids
    rows = rows_of([ids, ids], room=3)
    rows[1].top_logprobs = 2
    told = []
    answer(Session(engine.model), engine.tokenizer, rows, lambda row, text, tokens: told.extend(tokens))
    with torch.no_grad():
        logits = engine.model(torch.tensor([ids + rows[1].tokens])).logits[0, len(ids) - 1 :].log_softmax(-1)
    assert len(told) == 3
    for i, (one, token) in enumerate(zip(told, rows[1].tokens, strict=True)):
        assert one["logprob"] == pytest.approx(float(logits[i, token]), abs=1e-3)
        assert one["top_logprobs"][0]["logprob"] >= one["top_logprobs"][1]["logprob"]
        assert bytes(one["bytes"]).decode() == one["token"]

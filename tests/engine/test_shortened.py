"""A request's context is shortened on its way to the model, and nothing else of the prompt is."""

from dataclasses import replace

import pytest
from helpers.text_tools import TEXT, scorer
from PIL import Image

import laconic
from laconic.engine.engine import Engine, Request
from laconic.errors import ProtectError
from laconic.prompts.text import PromptError

QUESTION = "What is the code for falcon?"


@pytest.fixture(scope="module")
def engine():
    one = scorer()
    return Engine(one.model, one.tokenizer)


def request(*methods, **more):
    return Request(context=TEXT, question=QUESTION, methods=methods, max_new_tokens=4, **more)


def test_the_model_reads_what_was_kept_and_the_whole_question(engine):
    given = request(laconic.TruncateText(keep=0.3), system="Be brief.")
    short = engine.shortened(given)
    assert TEXT.startswith(short.context) and short.question == QUESTION and short.original is given
    assert engine.shortened(short) is short
    by_hand = replace(given, context=short.context, methods=())
    a, b = engine.answer(given), engine.answer(by_hand)
    assert a.ids == b.ids and engine.prompt(short).ids == engine.prompt(by_hand).ids
    assert a.final.kv_bytes == b.final.kv_bytes and a.final.kv_bytes_full > 2 * b.final.kv_bytes_full
    assert a.compressed.asked == 0.3 and a.first_seconds > a.session.methods[0].done.seconds


def test_a_request_without_such_methods_stays_as_it_is(engine):
    given = request(laconic.Random(keep=0.5))
    assert engine.shortened(given) is given


def test_methods_follow_each_other(engine):
    given = request(laconic.BM25(keep=0.5), laconic.TruncateText(keep=0.5), laconic.Random(keep=0.5))
    answer = engine.answer(given)
    assert answer.final.asked == 0.125 and abs(answer.final.achieved - 0.125) < 0.02
    assert [event.method for event in answer.session.trace.events[:3]] == ["bm25", "truncate_text", "random"]


def test_the_stock_model_reads_everything(engine):
    given = request(laconic.TruncateText(keep=0.3))
    prompt = engine.prompt(replace(given, methods=()))
    stock = engine.shortened(given).stock()
    assert engine.prompt(stock).ids == prompt.ids and stock.methods is None


def test_a_question_that_comes_later_is_not_looked_at(engine):
    seen = engine.answer(request(laconic.TruncateText(keep=0.3), mode="later"))
    assert seen.compressed.asked == 0.3
    with pytest.raises(PromptError, match="bm25 needs the question when"):
        engine.answer(request(laconic.BM25(keep=0.3), mode="later"))
    with pytest.raises(PromptError, match="bm25 needs the question"):
        engine.read(request(laconic.BM25(keep=0.3)))


def test_a_context_is_read_once_saved_and_opened(engine, tmp_path):
    one = scorer()
    context = laconic.read(one.model, one.tokenizer, TEXT, laconic.TruncateText(keep=0.3), laconic.Random(keep=0.5))
    assert context.stats.asked == 0.15
    said = context.ask(QUESTION, max_new_tokens=4).ids
    context.save(tmp_path / "file")
    opened = laconic.Context.load(tmp_path / "file", one.model, one.tokenizer)
    assert opened.ask(QUESTION, max_new_tokens=4).ids == said
    assert [method.name for method in opened.session.methods] == ["random"]


@pytest.mark.parametrize("own", [False, True])
def test_protected_strings_stay_through_text_and_cache(engine, own):
    protect = ["keeper (an old", "falcon?", "Be brief."]
    method = laconic.TruncateText(keep=0.3, protect=protect if own else ())
    given = request(method, laconic.Random(keep=0.8), protect=() if own else protect, system="Be brief.")
    assert engine.shortened(given).context.count("keeper (an old") == 6
    assert engine.answer(given).session.trace.events[1].after > 6 * 4


def test_a_range_of_tokens_is_followed_into_the_shortened_prompt(engine):
    asked = replace(request(), context=TEXT + "Zebras are never seen here")
    prompt = engine.prompt(asked)
    start = len(prompt.context) - 8
    span = (start, start + 20)  # from the context into the question
    text = engine.tokenizer.decode(prompt.ids[start : len(prompt.context)])
    given = replace(asked, methods=[laconic.TruncateText(keep=0.2), laconic.Random(keep=0.5)], protect=span)
    assert engine.shortened(given).context.endswith(text) and engine.answer(given).ids
    assert engine.answer(replace(given, protect=(0, 9))).ids  # the template's opening and the first words
    with pytest.raises(ProtectError, match=r"\(3, 9000\) is no range"):
        engine.answer(replace(given, protect=(3, 9000)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": " "}, "there is none"),
        ({"images": [Image.new("RGB", (8, 8))]}, "does not go with images"),
    ],
)
def test_what_cannot_be_shortened_is_refused(engine, change, message):
    with pytest.raises(PromptError, match=message):
        engine.shortened(replace(request(laconic.TruncateText(keep=0.3)), **change))
    built = replace(request(laconic.TruncateText(keep=0.3)), prompt=engine.prompt(request()))
    with pytest.raises(PromptError, match="built already"):
        engine.answer(built)

"""A chat gives the answers of one long prompt, in which the context alone, or all that was said, is compressed."""

import pytest
import torch
from helpers.bench_tools import tiny

from laconic.engine.chat import Chat
from laconic.engine.engine import Engine, Request
from laconic.errors import LaconicError
from laconic.methods.cache.random import Random
from laconic.prompts.text import build
from laconic.prompts.turns import following

CONTEXT = "The code for falcon is 4815263. The code for heron is 1623421. " * 6
FIRST, SECOND = "What is the code for falcon?", "And for heron?"


@pytest.fixture(scope="module")
def engine():
    return Engine(*tiny())


def asked(**options) -> Request:
    return Request(**{"context": CONTEXT, "max_new_tokens": 6} | options)


def plain(engine, context):
    """Both answers by `generate()` on the stock model, the end of turn written after the first where it is missing."""
    tokenizer, answers, ids = engine.tokenizer, [], build(engine.tokenizer, context, FIRST).ids
    for more in ([], following(tokenizer, SECOND, [tokenizer.eos_token_id]).ids):
        if more:
            ids = [*ids, *([] if ids[-1] == tokenizer.eos_token_id else [tokenizer.eos_token_id]), *more]
        out = engine.model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False)[0].tolist()
        answers.append(out[len(ids) :])
        ids = out
    return answers


@pytest.mark.parametrize("context", [CONTEXT, ""])
@pytest.mark.parametrize("methods", [None, (), [Random(keep=1.0)]])
def test_without_compression_the_answers_are_plain_generate(engine, methods, context):
    with Chat(engine, asked(methods=methods, context=context)) as chat:
        assert [chat.ask(FIRST).ids, chat.ask(SECOND).ids] == plain(engine, context)


def test_turns_about_a_context_are_stored_whole(engine):
    with Chat(engine, asked(methods=[Random(keep=0.25)])) as chat:
        chat.ask(FIRST)
        context = len(build(engine.tokenizer, CONTEXT, FIRST).context)
        kept, seen = context // 4, chat.stats.tokens_in + chat.stats.tokens_out
        assert chat.stats.entries == [kept + seen - context] * 2
        chat.ask(SECOND)
        now = chat.stats.tokens_in + chat.stats.tokens_out
        assert now > seen and chat.stats.entries == [kept + now - context] * 2


@pytest.mark.parametrize(("context", "compress_turns"), [(CONTEXT, True), ("", True), ("", False)])
def test_compressed_turns_keep_their_share_of_everything(engine, context, compress_turns):
    with Chat(engine, asked(methods=[Random(keep=0.5)], context=context), compress_turns) as chat:
        for question in (FIRST, SECOND):
            answer = chat.ask(question)
        seen = chat.stats.tokens_in + chat.stats.tokens_out
        decoded = len(answer.ids) - 1
        assert chat.stats.entries == [(seen - decoded) // 2 + decoded] * 2


def test_a_stopped_answer_stays_in_the_conversation(engine):
    with Chat(engine, asked(methods=())) as chat:
        whole = chat.ask(FIRST).ids
        chat.reset()
        pieces = []

        def on_text(text):
            pieces.append(text)
            chat.stop()

        stopped = chat.ask(FIRST, on_text)
        assert stopped.finish == "stop" and 0 < len(stopped.ids) < len(whole) and stopped.ids == whole[: len(stopped.ids)]
        assert "".join(pieces) == stopped.text
        second = chat.ask(SECOND)
        assert second.finish == "length"  # the wish to stop was for the first answer only
        turn = following(engine.tokenizer, SECOND, [engine.tokenizer.eos_token_id])
        ids = [*build(engine.tokenizer, CONTEXT, FIRST).ids, *stopped.ids, turn.end, *turn.ids]
        out = engine.model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False)
        assert second.ids == out[0, len(ids) :].tolist()


def test_reset_forgets_and_an_error_begins_anew(engine):
    with Chat(engine, asked(methods=[Random(keep=0.5)])) as chat:
        assert chat.stats is None and chat.answers == []
        first = chat.ask(FIRST)
        chat.ask(SECOND)
        chat.reset()
        assert chat.stats is None and chat.ask(FIRST).ids == first.ids and len(chat.answers) == 1
        with pytest.raises(LaconicError, match="question is empty"):
            chat.ask(" ")
        assert chat.answers == []
    assert engine.model.config._attn_implementation != "laconic"

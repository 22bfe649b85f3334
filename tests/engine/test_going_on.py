"""A saved context that goes on: what is kept is what two passes of one reading keep, and what was protected stays."""

from dataclasses import replace

import pytest
from helpers.bench_tools import tiny

import laconic
from laconic.cache.saved import load
from laconic.engine.engine import Engine, Request
from laconic.engine.going_on import go_on
from laconic.method import create_method
from laconic.prompts.text import Prompt, PromptError

FIRST = ("The code for falcon is 4815263. The code for heron is 1623421. " * 4).strip()
LATER = "\n\nThe code for owl is 7777777."


@pytest.fixture(scope="module")
def engine():
    return Engine(*tiny())


def saved(engine, folder, request):
    """The first part, read and written to a file."""
    context = engine.read(request)
    context.save(folder / "first.safetensors")
    return load(folder / "first.safetensors", engine.model, engine.tokenizer)


def both(engine, request):
    """The request of both parts, with its ids."""
    whole = replace(request, context=FIRST + LATER)
    return replace(whole, prompt=engine.prompt(replace(whole, question="?")))


def kept(context):
    return [context.cache.kept(layer, head).tolist() for layer in range(2) for head in range(2)]


@pytest.mark.parametrize("spec", ["keydiff:keep=0.5", "snapkv:keep=0.3,window=8", "streaming_llm:keep=0.5"])
def test_it_keeps_what_two_passes_of_one_reading_keep(engine, tmp_path, spec):
    request = Request(context=FIRST, methods=[create_method(spec)])
    first = saved(engine, tmp_path, request)
    context = go_on(engine, first, both(engine, request))
    want = engine.read(replace(both(engine, request), chunk=first.input_ids.shape[1]))
    assert context.ids == want.ids and kept(context) == kept(want)
    assert context.stats.achieved == want.stats.achieved and context.stats.kv_bytes == want.stats.kv_bytes
    assert context.ask("Which owl?", max_new_tokens=6).ids == want.ask("Which owl?", max_new_tokens=6).ids


def test_the_saved_context_stays_as_it_is(engine, tmp_path):
    request = Request(context=FIRST, methods=[laconic.KeyDiff(keep=0.5)])
    first = saved(engine, tmp_path, request)
    before = engine.read(Request(saved=first)).ask("Which?", max_new_tokens=6).ids
    go_on(engine, first, both(engine, request))
    assert engine.read(Request(saved=first)).ask("Which?", max_new_tokens=6).ids == before


def test_spans_of_both_parts_are_protected(engine, tmp_path):
    request = Request(context=FIRST, methods=[laconic.KeyDiff(keep=0.3)], protect=[(3, 9)])
    first = saved(engine, tmp_path, request)
    n = first.input_ids.shape[1]
    whole = both(engine, replace(request, protect=[(3, 9), (n + 1, n + 5)]))
    stays = {*range(3, 9), *range(n + 1, n + 5)}
    assert all(stays <= set(head) for head in kept(go_on(engine, first, whole)))
    unprotected = go_on(engine, first, replace(whole, protect=()))
    assert not all(stays <= set(head) for head in kept(unprotected))


def test_a_protected_text_is_looked_for_in_the_tokens_of_both(engine, tmp_path):
    request = Request(context=FIRST, methods=[laconic.KeyDiff(keep=0.1)])
    first = saved(engine, tmp_path, request)
    whole = both(engine, replace(request, protect=["owl is 7777777"]))
    context = go_on(engine, first, whole)
    (heads,) = {tuple(mask.nonzero()[:, 0].tolist()) for mask in context.cache.protected}
    said = engine.tokenizer.decode([whole.prompt.context[i] for i in heads])
    assert "owl is 7777777" in said and "code" not in said
    assert all(set(heads) <= set(head) for head in kept(context))


def test_another_beginning_and_nothing_new_are_refused(engine, tmp_path):
    request = Request(context=FIRST, methods=[laconic.KeyDiff(keep=0.5)])
    first = saved(engine, tmp_path, request)
    ids = first.input_ids[0].tolist()
    for wrong in (ids, ids[:-1], [*ids[:-1], ids[-1] + 1, 5]):
        with pytest.raises(PromptError, match="goes on"):
            go_on(engine, first, replace(request, prompt=Prompt(wrong, [], True, "")))

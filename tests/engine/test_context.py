"""A context is read once and asked often: every question sees it alone, in any order, from memory or from a file."""

import gc
from dataclasses import replace

import pytest
import torch
from helpers.bench_tools import tiny
from helpers.image_tools import small_vlm
from helpers.method_tools import METHODS, method

import laconic
from laconic.engine.chat import Chat
from laconic.engine.engine import Engine, Request
from laconic.errors import BudgetError, SavedContextError, SessionError
from laconic.prompts.text import PromptError, build
from laconic.tasks import find_task

CONTEXT = "The code for falcon is 4815263. The code for heron is 1623421. " * 6
FIRST, SECOND = "What is the code for falcon?", "And for heron?"
every_method = pytest.mark.parametrize("name", METHODS)


@pytest.fixture(scope="module")
def engine():
    return Engine(*tiny())


@pytest.fixture
def read(engine):
    """`read("keydiff", keep=0.5)` -> a Context; answers have three tokens."""

    def made(name=None, text=CONTEXT, **budget):
        methods = [] if name is None else [method(name, engine.model, **budget)]
        return engine.read(Request(context=text, methods=methods, max_new_tokens=3))

    return made


def test_read_once_without_compression_every_answer_is_plain_generate(engine, read):
    context = read()
    for question in (FIRST, SECOND, FIRST):
        ids = build(engine.tokenizer, CONTEXT, question).ids
        out = engine.model.generate(torch.tensor([ids]), max_new_tokens=3, do_sample=False)
        assert context.ask(question).ids == out[0, len(ids) :].tolist()


def test_a_path_is_a_file_and_a_str_is_text(engine, read, tmp_path):
    file = tmp_path / "report.txt"
    file.write_text("\ufeff" + CONTEXT, encoding="utf-8")
    assert laconic.read(engine.model, engine.tokenizer, file).ids == read().ids
    with pytest.raises(PromptError, match=r"give Path\('.*report.txt'\) to read the file"):
        laconic.read(engine.model, engine.tokenizer, str(file))
    with pytest.raises(PromptError, match=r"cannot read .*missing\.txt: No such file"):
        laconic.read(engine.model, engine.tokenizer, tmp_path / "missing.txt")


def test_what_is_printed_is_short(read):
    context = read("keydiff", keep=0.5)
    shown, answer = repr(context), context.ask(FIRST)
    assert shown.startswith("Context(") and "keydiff:keep=0.5" in shown and f"{len(context.ids):,} tokens" in shown
    assert len(shown) < 200 and str(answer) == answer.text


@every_method
def test_no_question_sees_what_another_one_left(engine, read, name, tmp_path):
    fresh = [read(name, keep=0.5).ask(question) for question in (FIRST, SECOND)]
    context = read(name, keep=0.5)
    context.save(tmp_path / "c")
    loaded = laconic.Context.load(tmp_path / "c", engine.model, engine.reader)
    stored = context.cache.nbytes
    for one in (context, loaded):
        one.request = context.request
        for question, want in zip((FIRST, SECOND, FIRST), (*fresh, fresh[0]), strict=True):
            assert one.ask(question).ids == want.ids
            one.ask(SECOND, follow_up=True)
        assert one.cache.seen == len(one.ids) and one.cache.nbytes == stored == one.stats.kv_bytes


def test_it_is_asked_as_the_engine_asks(engine, read):
    request = Request(context=CONTEXT, question=FIRST, methods=[method("keydiff", keep=0.3)], mode="later", max_new_tokens=3)
    assert read("keydiff", keep=0.3).ask(FIRST).ids == engine.answer(request).ids


def test_a_follow_up_sees_the_conversation(engine, read):
    context = read("keydiff", keep=0.5)
    answers = [context.ask(FIRST), context.ask(SECOND, follow_up=True), context.ask(FIRST, follow_up=True)]
    with Chat(engine, Request(context=CONTEXT, methods=[method("keydiff", keep=0.5)], max_new_tokens=3)) as chat:
        assert [answer.ids for answer in answers] == [chat.ask(question).ids for question in (FIRST, SECOND, FIRST)]
    alone = context.ask(SECOND)
    assert alone.prompt.tokens_in == len(context.ids) + len(context.prompt(SECOND).question)
    context.rewind()
    with pytest.raises(PromptError, match="no answer yet"):
        context.ask(SECOND, follow_up=True)


def test_a_follow_up_takes_no_prefix(read):
    context = read("keydiff", keep=0.5)
    first = context.ask(FIRST)
    with pytest.raises(PromptError, match="answer_prefix='The code' does not go with follow_up=True"):
        context.ask(SECOND, follow_up=True, answer_prefix="The code")
    want = context.ask(SECOND, follow_up=True).ids  # the conversation is as it was
    assert context.ask(FIRST).ids == first.ids and context.ask(SECOND, follow_up=True).ids == want


def test_the_context_is_read_once(engine, read):
    fed = []
    hook = engine.model.model.embed_tokens.register_forward_pre_hook(lambda m, a: fed.append(a[0].shape[1]))
    try:
        context = read("keydiff", keep=0.5)
        asked = [len(context.prompt(question).question) for question in (FIRST, SECOND)]
        context.ask(FIRST, max_new_tokens=1), context.ask(SECOND, max_new_tokens=1)
    finally:
        hook.remove()
    assert fed == [len(context.ids), *asked]


def test_between_questions_the_model_is_free_and_as_it_was(engine, read):
    ids = torch.tensor([[5, 6, 7]])
    before, hooks = engine.model(ids).logits, len(engine.model._forward_hooks)
    one, other = read("keydiff", keep=0.5), read("snapkv", keep=0.25)
    for _ in range(2):
        assert one.ask(FIRST).ids and other.ask(FIRST).ids
        assert torch.equal(engine.model(ids).logits, before) and len(engine.model._forward_hooks) == hooks


def test_a_question_takes_its_own_memory_and_returns_it(read):
    context = read("keydiff", keep=0.5)
    alone = context.allocated
    context.ask(FIRST)
    both = context.allocated
    for _ in range(5):
        context.ask(FIRST)
    gc.collect()
    assert alone < both == context.allocated
    context.rewind()
    assert context.allocated == alone


def test_calls_of_ones_own_go_to_a_fork(engine, read):
    context = read("keydiff", keep=0.5)
    want = context.ask(FIRST).ids
    ids = torch.tensor([context.prompt(FIRST).ids])
    with context.session, context.session.hold(), torch.no_grad():
        out = engine.model.generate(ids, past_key_values=context.fork(), max_new_tokens=3, do_sample=False)
    assert out[0, ids.shape[1] :].tolist() == want


def test_a_question_that_fails_leaves_the_context_as_it_was(engine, read):
    context = read("keydiff", keep=0.5)
    want = context.ask(FIRST).ids

    def fail(text):
        raise KeyboardInterrupt

    for follow_up in (False, True):
        with pytest.raises(KeyboardInterrupt):
            context.ask(SECOND, follow_up=follow_up, on_text=fail, max_new_tokens=20)
        assert context.ask(FIRST).ids == want
    with pytest.raises(PromptError, match="the question is empty"):
        context.ask("  ")


def test_options_of_generate_and_prefixes(engine, read):
    context = read("keydiff", keep=0.5)
    assert context.ask(FIRST, max_new_tokens=3).ids == context.ask(FIRST).ids[:3]
    torch.manual_seed(0)
    drawn = context.ask(FIRST, do_sample=True, temperature=5.0).ids
    assert drawn != context.ask(FIRST).ids
    assert context.prompt(FIRST, "The code").ids[-1] != context.prompt(FIRST).ids[-1]
    pieces = []
    assert "".join([context.ask(FIRST, on_text=pieces.append).text]) == "".join(pieces)


def test_what_cannot_be_read_is_refused(engine, read):
    model, reader = engine.model, engine.reader
    with pytest.raises(PromptError, match="nothing to read"):
        laconic.read(model, reader, "")
    with pytest.raises(BudgetError):
        laconic.read(model, reader, CONTEXT, "keydiff:keep=2")
    context = laconic.read(model, reader, CONTEXT, "keydiff:keep=0.5")
    assert context.ids == read("keydiff", keep=0.5).ids and context.stats.achieved == pytest.approx(0.5, abs=0.01)


def test_methods_of_a_file_are_those_of_the_file(engine, read, tmp_path):
    read("keydiff", keep=0.5).save(tmp_path / "c")
    saved = laconic.load_cache(tmp_path / "c", engine.model, engine.tokenizer)
    context = laconic.read(engine.model, engine.reader, saved)
    assert [str(m) for m in context.session.methods] == ["keydiff(keep=0.5)"] and context.request.context == CONTEXT
    with pytest.raises(ValueError, match="give the file alone"):
        laconic.read(engine.model, engine.reader, saved, "snapkv")
    with pytest.raises(PromptError, match="give the file alone"):
        laconic.read(engine.model, engine.reader, saved, chunk=16)
    with pytest.raises(SavedContextError, match="does not exist"):
        laconic.Context.load(tmp_path / "none", engine.model, engine.reader)


def test_weights_that_belong_to_one_prompt_are_refused(engine, monkeypatch):
    class Own(laconic.KeyDiff):
        def before_prompt(self, step): ...
        def before_decoding(self, step): ...

    with pytest.raises(SessionError, match="the weights of keydiff depend on the prompt"):
        laconic.read(engine.model, engine.reader, CONTEXT, Own(keep=0.5))


def test_images_are_read_once_too(tmp_path):
    model, processor = small_vlm()
    image = find_task("reading").sample(1_000_000).shown()[0]
    method = laconic.SnapKV(keep=0.5)
    context = laconic.read(model, processor, "A scene.", method, images=[image])
    encoded = []
    hook = model.model.vision_tower.register_forward_pre_hook(lambda m, a: encoded.append(1))
    try:
        for question in ("What is there?", "Which colour?", "What is there?"):
            request = Request(
                "A scene.", question, [image], methods=[laconic.SnapKV(keep=0.5)], mode="later", max_new_tokens=5
            )
            encoded.clear()
            got = context.ask(question, max_new_tokens=5)
            assert not encoded
            want = Engine(model, processor).answer(request)
            assert got.ids == want.ids and got.prompt.tokens_in == want.prompt.tokens_in and encoded
        context.save(tmp_path / "c")
        loaded = laconic.Context.load(tmp_path / "c", model, processor)
        encoded.clear()
        assert loaded.images == 1 and loaded.ask("What is there?", max_new_tokens=5).ids == got.ids and not encoded
    finally:
        hook.remove()
    with pytest.raises(PromptError, match="other tokens around the context"):
        loaded.request = replace(loaded.request, context="Another scene.")
        loaded.ask("What is there?")

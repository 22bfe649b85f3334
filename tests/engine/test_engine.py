"""The engine: a request is `generate()` on a session's cache, with figures of the moments that matter."""

import warnings
from dataclasses import replace

import pytest
import torch
from helpers.bench_tools import tiny
from helpers.image_tools import enter_methods, leave_methods, small_vlm
from helpers.vision_zoo import CASES, IMAGE
from torch.nn.functional import pad

from laconic.engine.engine import Engine, Request
from laconic.method import create_method
from laconic.methods.cache.random import Random
from laconic.prompts.batch import encode
from laconic.prompts.text import Prompt, PromptError, build
from laconic.session import compress
from laconic.tasks import find_task

CONTEXT = "The code for falcon is 4815263. The code for heron is 1623421. " * 6
QUESTION = "What is the code for falcon?"


class Spy(Random):
    """`random` that notes what every pass showed it: (layer, tokens before, tokens of the pass)."""

    def score(self, obs):
        self.__dict__.setdefault("notes", []).append((obs.layer, obs.step.start, obs.step.length))
        return super().score(obs)


@pytest.fixture(scope="module")
def engine():
    return Engine(*tiny())


@pytest.fixture(scope="module")
def prompt(engine):
    return build(engine.tokenizer, CONTEXT, QUESTION)


@pytest.fixture
def follow_up(engine):
    """The ids of another user's turn, up to where the answer begins."""
    return build(engine.tokenizer, "", "And for heron?").ids[1:]


def asked(**options) -> Request:
    return Request(**{"context": CONTEXT, "question": QUESTION, "max_new_tokens": 6} | options)


def generated(engine, ids, room):
    out = engine.model.generate(torch.tensor([ids]), max_new_tokens=room, do_sample=False)
    return out[0, len(ids) :].tolist()


@pytest.mark.parametrize("mode", ["in view", "later"])
@pytest.mark.parametrize("methods", [None, (), [create_method("snapkv", keep=1.0)]])
def test_without_compression_the_answer_is_plain_generate(engine, prompt, mode, methods):
    answer = engine.answer(asked(methods=methods, mode=mode))
    assert answer.ids == generated(engine, prompt.ids, 6)
    assert answer.text == engine.tokenizer.decode(answer.ids, skip_special_tokens=True)
    assert answer.prompt.tokens_in == prompt.tokens and answer.finish == "length" and answer.notes == []
    assert answer.compressed.tokens_in == (prompt.tokens if mode == "in view" else len(prompt.context))


def test_in_view_the_whole_prompt_is_compressed(engine, prompt):
    spy = Spy(keep=0.5)
    answer = engine.answer(asked(methods=[spy]))
    assert spy.notes == [(layer, 0, prompt.tokens) for layer in range(2)]
    assert answer.prompt.entries == [prompt.tokens // 2] * 2 and answer.compressed == answer.prompt
    assert answer.final.entries == [prompt.tokens // 2 + len(answer.ids) - 1] * 2


def test_the_figures_after_the_prompt_are_of_what_has_been_packed(engine):
    """A quantiser beside a method that chooses packs when the prompt is known to be over."""
    methods = [create_method("snapkv:keep=0.5,window=8"), create_method("kivi:bits=2,group=8,residual=8")]
    request = Request(context="A heron waits at the pond. " * 20, question="Who waits?", max_new_tokens=3)
    chosen, both = (engine.answer(replace(request, methods=some)) for some in (methods[:1], methods))
    assert both.prompt.kv_bytes < 0.7 * chosen.prompt.kv_bytes
    assert both.prompt.kv_bytes < both.final.kv_bytes < chosen.final.kv_bytes


def test_later_the_context_alone_is_compressed_and_the_question_stored_whole(engine, prompt):
    spy = Spy(keep=0.25)
    answer = engine.answer(asked(methods=[spy], mode="later"))
    kept = len(prompt.context) // 4
    assert spy.notes == [(layer, 0, len(prompt.context)) for layer in range(2)]
    assert answer.compressed.entries == [kept] * 2 and answer.compressed.tokens_in == len(prompt.context)
    assert answer.prompt.entries == [kept + len(prompt.question)] * 2 and answer.prompt.tokens_in == prompt.tokens
    assert answer.final.entries == [kept + len(prompt.question) + len(answer.ids) - 1] * 2


@pytest.mark.parametrize("mode", ["in view", "later"])
def test_a_context_read_in_chunks_is_the_same_context(engine, mode):
    for methods in (None, ()):
        assert engine.answer(asked(methods=methods, mode=mode, chunk=32)).ids == engine.answer(asked(mode=mode)).ids


def test_a_saved_context_is_asked_without_reading_it_again(engine, prompt, tmp_path):
    from laconic.cache.saved import load

    method = create_method("snapkv", keep=0.5)
    with torch.no_grad(), compress(engine.model, method, tokenizer=engine.tokenizer) as session:
        engine.model(torch.tensor([prompt.context]))
        session.save_cache(tmp_path / "c", input_ids=torch.tensor([prompt.context]), text=CONTEXT)
    saved = load(tmp_path / "c", engine.model)
    fresh = engine.answer(asked(methods=[method], mode="later"))
    request = Request(question=QUESTION, saved=saved, max_new_tokens=6)  # with the methods that compressed it
    answer = engine.answer(request)
    assert answer.ids == fresh.ids and answer.prompt.kv_bytes == fresh.prompt.kv_bytes
    assert answer.prompt.prefill_flops < 0.5 * fresh.prompt.prefill_flops
    assert engine.answer(request.stock()).ids == generated(engine, prompt.ids, 6)
    saved.input_ids = saved.input_ids[:, 1:]
    with pytest.raises(PromptError, match="puts other tokens before the context"):
        engine.prompt(Request(question=QUESTION, saved=saved))


@pytest.mark.parametrize("mode", ["in view", "later"])
@pytest.mark.parametrize("methods", [None, ()])
def test_a_conversation_is_plain_generate_on_all_that_was_said(engine, prompt, follow_up, mode, methods):
    with engine.conversation(asked(methods=methods, mode=mode)) as talk:
        talk.ask(follow_up, 3)
        talk.ask(follow_up)
    said = list(prompt.ids)
    for answer, room in zip(talk.answers, (6, 3, 6), strict=True):
        assert answer.ids == generated(engine, said, room)
        said += [*answer.ids, engine.tokenizer.eos_token_id, *follow_up]
        assert answer.prompt == talk.answers[0].prompt


def test_further_questions_are_stored_whole(engine, prompt, follow_up):
    spy = Spy(keep=0.5)
    with engine.conversation(asked(methods=[spy])) as talk:
        talk.ask(follow_up)
    assert spy.notes == [(layer, 0, prompt.tokens) for layer in range(2)]
    first, second = talk.answers
    new = len(first.ids) + 1 + len(follow_up) + len(second.ids) - 1  # the end of the first turn is added
    assert second.final.entries == [prompt.tokens // 2 + new] * 2
    evicting = engine.answer(asked(methods=[create_method("tova", keep=0.25)])).final
    held = engine.answer(asked(methods=[create_method("tova", keep=0.25)], mode="later")).final
    assert evicting.achieved < 0.26 < held.achieved


def test_the_prompt_can_be_looked_at_before_anything_is_decoded(engine, prompt):
    stored = []
    engine.answer(asked(methods=[Random(keep=0.5)]), at_prompt=lambda session: stored.append(len(session.kept(0))))
    assert stored == [prompt.tokens // 2]


def test_text_is_streamed_in_pieces(engine):
    pieces = []
    answer = engine.answer(asked(max_new_tokens=20), on_text=pieces.append)
    assert "".join(pieces) == answer.text and len(pieces) > 1 and all(pieces)


def test_clocks_and_memory(engine):
    answer = engine.answer(asked(methods=[Random(keep=0.5)]))
    assert 0 < answer.first_seconds < 60 and answer.later_seconds > 0
    assert answer.seconds_per_token == answer.later_seconds / 5
    assert engine.answer(asked(max_new_tokens=1)).seconds_per_token is None
    assert answer.peak_memory > 10**7 and answer.memory_kind


def test_an_answer_ends_with_its_turn(engine, prompt, monkeypatch):
    ids = generated(engine, prompt.ids, 6)
    monkeypatch.setattr(engine.model.generation_config, "eos_token_id", [ids[2]])
    answer = engine.answer(asked())
    assert answer.ids == ids[: ids.index(ids[2]) + 1] and answer.finish == "eos"


def test_samples_follow_the_seed(engine):
    drawn = [engine.answer(asked(sample=True, temperature=3.0, seed=seed)).ids for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    torch.manual_seed(5)
    engine.answer(asked())
    assert torch.initial_seed() == 5  # without a seed the generator is left alone


@pytest.mark.parametrize("methods", [None, ()])
def test_further_options_go_to_generate(engine, prompt, methods):
    beams = engine.model.generate(torch.tensor([prompt.ids]), max_new_tokens=6, do_sample=False, num_beams=3)
    answer = engine.answer(asked(methods=methods, options={"num_beams": 3}))
    assert answer.ids == beams[0, len(prompt.ids) :].tolist()
    assert answer.first_seconds > 0 and answer.later_seconds > 0  # clocks run with beams, too


def test_a_stopping_criterion_ends_an_answer(engine, prompt):
    def third(ids, scores, **kwargs):
        return torch.full((len(ids),), ids.shape[1] == prompt.tokens + 3)

    answer = engine.answer(asked(options={"stopping_criteria": [third]}))
    assert answer.ids == generated(engine, prompt.ids, 3) and answer.finish == "stop"


def test_warnings_become_notes_once(engine):
    class Warner(Random):
        def score(self, obs):
            warnings.warn("random is not sure", stacklevel=2)
            warnings.warn("old", DeprecationWarning, stacklevel=2)
            return super().score(obs)

    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        answer = engine.answer(asked(methods=[Warner(keep=0.5)]))
    assert answer.notes == ["random is not sure"] and leaked == []


def test_nothing_stays_on_the_model(engine):
    def hooks():
        return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in engine.model.modules()]

    before, implementation = hooks(), engine.model.config._attn_implementation
    for methods in (None, [Random(keep=0.5)]):
        engine.answer(asked(methods=methods))
        with pytest.raises(ZeroDivisionError):
            engine.answer(asked(methods=methods), at_prompt=lambda session: 1 / 0)
        assert hooks() == before and engine.model.config._attn_implementation == implementation


def test_a_request_of_the_stock_model_is_the_same_prompt_in_view(engine, prompt):
    request = asked(methods=[Random(keep=0.1)], mode="later", protect="falcon").stock()
    assert engine.answer(request).ids == generated(engine, prompt.ids, 6)


def test_later_needs_both_parts(engine):
    with pytest.raises(PromptError, match="a context before the question"):
        engine.answer(asked(context="", mode="later"))


def test_earlier_turns_are_compressed_with_the_context(engine):
    history = ({"role": "user", "content": "The code for owl is 77."}, {"role": "assistant", "content": "Noted."})
    request = asked(
        context="", question="What is the code for owl?", history=history, mode="later", methods=[Random(keep=0.5)]
    )
    prompt = engine.prompt(request)
    assert engine.tokenizer.decode(prompt.question).startswith("What is the code") and "Noted." in prompt.text
    answer = engine.answer(request)
    assert answer.compressed.entries == [len(prompt.context) // 2] * 2
    with pytest.raises(PromptError, match="does not go with images"):
        engine.prompt(asked(history=history, images=[object()]))


# -- batches ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def vlm():
    names = enter_methods()
    yield Engine(*small_vlm())
    leave_methods(names)


@pytest.fixture(scope="module")
def samples():
    """Three questions about images whose prompts are equally long."""
    found = find_task("count").samples(0, 12)
    by_length: dict[int, list] = {}
    for sample in found:
        by_length.setdefault(len(sample.question.split()), []).append(sample)
    return max(by_length.values(), key=len)[:3]


def batch_of(vlm, samples, spec):
    inputs = encode(vlm.reader, [s.question for s in samples], [s.shown()[0] for s in samples])
    assert bool(inputs["attention_mask"].all())
    methods = None if spec is None else [create_method(spec)]
    return vlm.answer_batch(inputs, Request(methods=methods, max_new_tokens=4))


@pytest.mark.parametrize("spec", [None, "test_first:keep=0.25", "snapkv:keep=0.5,window=8"])
def test_a_batch_gives_every_sequence_what_it_gets_alone(vlm, samples, spec):
    figures = ("tokens_in", "kv_bytes", "kv_bytes_full", "prefill_flops", "prefill_flops_full", "achieved", "visual_in")
    for sample, answer in zip(samples, batch_of(vlm, samples, spec), strict=True):
        (alone,) = batch_of(vlm, [sample], spec)
        assert answer.ids == alone.ids and answer.text == alone.text
        for figure in figures:
            assert getattr(answer.prompt, figure) == pytest.approx(getattr(alone.prompt, figure), rel=1e-6), figure
        assert answer.final.kv_bytes > answer.prompt.kv_bytes and answer.first_seconds > 0


def test_sequences_of_a_batch_end_with_their_own_turns(vlm, samples, monkeypatch):
    ids = [answer.ids for answer in batch_of(vlm, samples, None)]
    monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", ids[0][1])
    first = batch_of(vlm, samples, None)[0]
    assert first.ids == ids[0][: ids[0].index(ids[0][1]) + 1] and first.finish == "eos"


def test_a_batch_has_one_mode(vlm):
    with pytest.raises(ValueError, match="ask one by one"):
        vlm.answer_batch({}, Request(mode="later"))


# -- images ----------------------------------------------------------------------------------------------------------
class Numbers:
    """Decodes ids as numbers."""

    pad_token_id = 0
    eos_token_id = None

    def decode(self, ids, skip_special_tokens):
        return " ".join(map(str, ids))


@pytest.mark.parametrize("mode", ["in view", "later"])
@pytest.mark.parametrize("name", CASES)
def test_neutral_runs_are_the_stock_model_on_every_vision_class(name, mode):
    """Images go through `generate()`, or are read before the question."""
    model, case = CASES[name].build(), CASES[name]
    given = case.inputs([[case.image(0), case.image(1)]])
    ids = [*given.pop("input_ids")[0].tolist(), 7, 12, 9]
    given.pop("attention_mask")
    if "mm_token_type_ids" in given:
        given["mm_token_type_ids"] = pad(given["mm_token_type_ids"], (0, 3))
    model.generation_config.suppress_tokens = [IMAGE]
    engine = Engine(model, Numbers())
    request = Request(
        prompt=Prompt(ids[:-3], ids[-3:], True, "", given), methods=[create_method("snapkv", keep=1.0)], mode=mode,
        max_new_tokens=5,
    )  # fmt: skip
    answer, stock = engine.answer(request), engine.answer(request.stock())
    assert answer.ids == stock.ids and len(stock.ids) == 5
    assert answer.prompt.kv_bytes == stock.prompt.kv_bytes and answer.final.kv_bytes == stock.final.kv_bytes
    assert answer.final.encoder_seconds > 0 and stock.final.encoder_seconds > 0

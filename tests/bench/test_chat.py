from dataclasses import replace

import pytest
import torch

from laconic.bench.chat import SPARE_TOKENS, answer
from laconic.bench.comparison import comparisons
from laconic.engine.engine import Engine
from laconic.method import create_method
from laconic.methods.cache.random import Random
from laconic.prompts.text import build
from laconic.tasks import Sample, Turn
from laconic.tasks.text.chat import gold_ids, prompt_ids, turn_ids
from laconic.tasks.text.retrieval import make

SEED = 1_000_001
MODES = comparisons()["text"].meanings


class Spy(Random):
    """`random` that notes what every pass showed it: (layer, tokens before, tokens of the pass)."""

    def score(self, obs):
        self.__dict__.setdefault("notes", []).append((obs.layer, obs.step.start, obs.step.length))
        return super().score(obs)


@pytest.fixture(scope="module")
def turns(tiny_model):
    return make("kvturns", SEED, 200, tiny_model[1])


def whole_prompt(sample, tokenizer):
    context, question = prompt_ids(sample, tokenizer)
    return [*context, *question]


def plain_generate(model, tokenizer, ids, room):
    out = model.generate(torch.tensor([ids]), max_new_tokens=room, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    return out[0, len(ids) :].tolist()


@pytest.mark.parametrize("mode", ["aware", "agnostic"])
def test_the_uncompressed_model_is_plain_generate(tiny_model, mode):
    model, tokenizer = tiny_model
    sample = make("single", SEED, 160, tokenizer)
    ids = whole_prompt(sample, tokenizer)
    wanted = plain_generate(model, tokenizer, ids, len(gold_ids(sample, tokenizer)) + SPARE_TOKENS)
    assert answer(Engine(model, tokenizer), sample, mode, None)[0].ids == wanted


def test_turns_uncompressed_are_plain_generate_on_the_whole_talk(tiny_model, turns):
    model, tokenizer = tiny_model
    talk = whole_prompt(turns, tokenizer)
    found = answer(Engine(model, tokenizer), turns, "turns", None)
    assert len(found) == len(turns.turns) >= 3
    for turn, got in enumerate(found):
        if turn:
            talk += turn_ids(turns, tokenizer, turn)
        assert got.ids == plain_generate(model, tokenizer, talk, len(gold_ids(turns, tokenizer, turn)) + SPARE_TOKENS)
        talk += got.ids
        if talk[-1] != tokenizer.eos_token_id:
            talk.append(tokenizer.eos_token_id)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("spec", ["snapkv:window=16", "h2o", "streaming_llm"])
def test_a_neutral_method_answers_as_the_uncompressed_model(tiny_model, turns, mode, spec):
    model, tokenizer = tiny_model
    plain = answer(Engine(model, tokenizer), turns, mode, None)
    neutral = answer(Engine(model, tokenizer), turns, mode, create_method(spec, keep=1.0))
    assert [a.ids for a in neutral] == [a.ids for a in plain]
    assert neutral[0].prompt.kv_bytes == plain[0].prompt.kv_bytes
    assert neutral[0].prompt.prefill_flops_full == plain[0].prompt.prefill_flops_full


def test_aware_compresses_the_whole_prompt(tiny_model, turns):
    model, tokenizer = tiny_model
    context, question = prompt_ids(turns, tokenizer)
    spy = Spy(keep=0.5)
    found = answer(Engine(model, tokenizer), turns, "aware", spy)
    assert spy.notes == [(layer, 0, len(context) + len(question)) for layer in range(2)]
    assert found[0].prompt.tokens_in == len(context) + len(question)
    assert found[0].prompt.achieved == pytest.approx(0.5, abs=0.01)


def test_turns_aware_compresses_the_first_question_too_and_stores_the_others_whole(tiny_model, turns):
    model, tokenizer = tiny_model
    context, question = prompt_ids(turns, tokenizer)
    spy = Spy(keep=0.5)
    found = answer(Engine(model, tokenizer), turns, "turns_aware", spy)
    whole = len(context) + len(question)
    assert spy.notes == [(layer, 0, whole) for layer in range(2)] and len(found) == len(turns.turns)
    assert found[0].prompt.entries == [whole // 2] * 2
    talked = found[-1].final.tokens_in + found[-1].final.tokens_out
    assert found[-1].final.entries == [whole // 2 + talked - whole] * 2


@pytest.mark.parametrize("mode", ["agnostic", "turns"])
def test_agnostic_compresses_the_context_once_before_any_question(tiny_model, turns, mode):
    model, tokenizer = tiny_model
    context, question = prompt_ids(turns, tokenizer)
    spy = Spy(keep=0.25)
    found = answer(Engine(model, tokenizer), turns, mode, spy)
    assert spy.notes == [(layer, 0, len(context)) for layer in range(2)]
    kept = int(0.25 * len(context))
    assert found[0].compressed.entries == [kept, kept]
    assert found[0].compressed.tokens_in == len(context)
    assert found[0].prompt.entries == [kept + len(question)] * 2  # the question is stored whole
    assert found[0].prompt.tokens_in == len(context) + len(question)
    spoken = sum(len(a.ids) for a in found)
    later = sum(len(turn_ids(turns, tokenizer, t)) for t in range(1, len(found)))
    ends = sum(a.ids[-1] != tokenizer.eos_token_id for a in found[:-1])
    assert found[-1].final.entries == [kept + len(question) + spoken + later + ends - 1] * 2


def test_decoding_methods_go_on_evicting_when_aware_only(tiny_model, turns):
    model, tokenizer = tiny_model
    aware = answer(Engine(model, tokenizer), turns, "aware", create_method("tova", keep=0.25))[-1].final
    held = answer(Engine(model, tokenizer), turns, "agnostic", create_method("tova", keep=0.25))[-1].final
    assert aware.achieved == pytest.approx(0.25, abs=0.01)
    assert held.achieved > 0.27


def test_clocks_run_forward(tiny_model, turns):
    found = answer(Engine(*tiny_model), turns, "turns", create_method("random", keep=0.5))
    assert all(a.first_seconds > 0 and a.later_seconds >= 0 for a in found)
    assert found[-1].final.compress_seconds > 0


def test_a_text_without_a_gold_answer_is_asked_as_it_is_with_room_to_answer(tiny_model):
    model, tokenizer = tiny_model
    sample = Sample("own", 0, (Turn("What is it?", ("x",)),), "A text of any kind.\nIt ends here.")
    prompt = build(tokenizer, sample.context, "What is it?")
    for mode in ("aware", "agnostic"):
        (found,) = answer(Engine(model, tokenizer), sample, mode, None, new_tokens=20)
        assert found.ids == plain_generate(model, tokenizer, prompt.ids, 20) and len(found.ids) == 20
        assert found.compressed.tokens_in == (prompt.tokens if mode == "aware" else len(prompt.context))


@pytest.mark.parametrize("mode", MODES)
def test_a_context_is_shortened_before_it_is_read(tiny_model, turns, mode):
    model, tokenizer = tiny_model
    method = create_method("truncate_text", keep=0.5)
    replies = answer(Engine(model, tokenizer), turns, mode, method)
    figures = replies[0].compressed
    assert figures.asked == 0.5 and 0.45 < figures.achieved < 0.51
    short = replies[0].session.methods[0].done.text
    assert turns.context.startswith(short)
    plain = answer(Engine(model, tokenizer), replace(turns, context=short), mode, None)
    assert [reply.ids for reply in replies] == [reply.ids for reply in plain]

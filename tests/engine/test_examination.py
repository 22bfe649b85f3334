"""What teacher forcing over recorded passes says is what plain runs say."""

import pytest
import torch
from helpers.testbed_model import model as model
from helpers.testbed_model import tokenizer as tokenizer
from helpers.zoo import ALL, prompt

from laconic import UnsupportedModelError, compress
from laconic.engine import examination
from laconic.engine.engine import Engine, Request
from laconic.engine.examination import Examination
from laconic.engine.generation import read_context
from laconic.method import create_method
from laconic.prompts.text import PromptError
from laconic.session import Session
from laconic.tasks import Sample, Turn, find_task
from laconic.tasks.task import EVALUATION_SEED

SPECS = ["snapkv:window=16", "keydiff", "kvzip", "fastkv", "streaming_llm", "kivi:residual=32", "adakv:over=model"]


@pytest.fixture(scope="module")
def engine(model, tokenizer):
    return Engine(model, tokenizer)


@pytest.fixture(scope="module")
def sample(tokenizer):
    return find_task("kvturns").opened(tokens=512, tokenizer=tokenizer).sample(EVALUATION_SEED + 3)


@pytest.fixture(scope="module", params=["later", "in view"])
def exam(request, engine, sample):
    return Examination(engine, sample, request.param, 3)


def plainly(engine, sample, turn, mode, method):
    """The greedy answer of a plain run, as the whole prompt of one question."""
    asked = sample.turns[turn]
    methods = None if method is None else [method]
    room = len(engine.tokenizer.encode(asked.gold.removeprefix(asked.prefix), add_special_tokens=False))
    request = Request(
        sample.context,
        asked.question,
        answer_prefix=asked.prefix,
        methods=methods,
        mode=mode,
        max_new_tokens=room,
        count_flops=True,
    )
    return engine.answer(request)


def test_models_whose_state_cannot_be_repeated_are_refused():
    built = ALL["qwen3-next"].build()
    with torch.no_grad(), compress(built) as session:
        read_context(session, prompt(1, 20)[0].tolist())
        with pytest.raises(UnsupportedModelError, match="ask them one by one"):
            examination.forced(session, [[5, 6], [7]], [[8], [9]])


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("keep", [0.5, 0.2])
@pytest.mark.filterwarnings("ignore")
def test_answers_are_those_of_plain_runs(engine, sample, exam, spec, keep):
    assert exam.known, "the model answers none of them"
    found = exam.ask(create_method(spec, keep=keep))
    assert found.asked == exam.known and len(found.right) == len(found.asked)
    for i, turn in enumerate(found.asked):
        answer = plainly(engine, sample, turn, exam.mode, create_method(spec, keep=keep))
        asked = sample.turns[turn]
        assert found.right[i] == float(answer.text.strip() == asked.gold.removeprefix(asked.prefix).strip())
        figures = found.figures[i if exam.mode == "in view" else 0]
        assert figures.kv_bytes == answer.compressed.kv_bytes
        assert figures.prefill_flops == answer.compressed.prefill_flops
        assert figures.method_flops == answer.compressed.method_flops


@pytest.mark.parametrize("spec", ["truncate_text:side=left", "bm25:chunk=16"])
@pytest.mark.parametrize("keep", [0.5, 0.2])
def test_a_shortened_context_is_read_as_in_a_plain_run(engine, sample, exam, spec, keep):
    method = create_method(spec, keep=keep)
    if exam.mode == "later" and method.needs_question:
        with pytest.raises(PromptError, match="it cannot come later"):
            exam.ask(method)
        return
    found = exam.ask(method)
    assert found.asked == exam.known and not found.recorded and len(found.right) == len(found.asked)
    for i, turn in enumerate(found.asked):
        answer, asked = plainly(engine, sample, turn, exam.mode, method), sample.turns[turn]
        assert found.right[i] == float(answer.text.strip() == asked.gold.removeprefix(asked.prefix).strip())
        figures = found.figures[i if exam.mode == "in view" else 0]
        assert figures.kv_bytes == answer.compressed.kv_bytes and figures.asked == keep
        assert figures.kv_bytes_full == answer.compressed.kv_bytes_full


@pytest.mark.parametrize(
    "spec", ["snapkv:window=16,keep=1", "snapkv:window=16,keep=0.3", "adakv:over=model,keep=0.3", "kvzip:keep=0.3"]
)
def test_questions_of_different_lengths_are_read_as_if_each_were_alone(engine, sample, spec):
    context = engine.tokenizer.encode(sample.context, add_special_tokens=False)
    rows, wanted = [[40, 50, 60], [70, 80, 90, 100, 110, 120, 130], [55]], [2, 4, 1]
    with torch.inference_mode(), Session(engine.model, [create_method(spec)]) as session:
        read_context(session, context)
        shared = session.cache
        alone = []
        for row, count in zip(rows, wanted, strict=True):
            with session.hold():
                out = engine.model(torch.tensor([row]), past_key_values=shared.fork(), use_cache=True).logits
            alone.append(out[0, -count:])
        session.cache = shared.fork()
        together = examination._logits(session, rows, wanted)
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a.float(), b.float(), atol=0.15, rtol=0.05)  # the model is bf16


@pytest.mark.parametrize("wanted", [[0, 2], [0, 0]])
def test_of_rows_of_which_nothing_is_wanted_nothing_comes(engine, wanted):
    with torch.inference_mode(), Session(engine.model, []) as session:
        read_context(session, [40, 50, 60])
        assert [len(one) for one in examination._logits(session, [[70], [80, 90]], wanted)] == wanted


def test_the_uncompressed_model_decides_what_is_asked(engine, exam, sample):
    for turn in range(3):
        answer = plainly(engine, sample, turn, exam.mode, None)
        gold = sample.turns[turn].gold.removeprefix(sample.turns[turn].prefix).strip()
        assert (turn in exam.known) == (answer.text.strip() == gold)
    assert exam.ask(create_method("snapkv", keep=1.0)).right == [1.0] * len(exam.known)


def test_only_the_first_of_several_budgets_reads_the_document(engine, sample):
    exam = Examination(engine, sample, "later", 3)
    seen = [
        exam.ask(create_method(spec, keep=keep)).recorded for spec in ("keydiff", "kvzip", "fastkv") for keep in (0.5, 0.2)
    ]
    assert seen == [True, True, False, True, False, False]


def test_a_wrong_answer_is_wrong(engine, sample):
    turn = sample.turns[0]
    wrong = Turn(turn.question, turn.answers, turn.prefix, f"{turn.prefix} 1234567.")
    assert Examination(engine, Sample("t", 0, (wrong,), sample.context), "later").known == []


def test_a_continuation_is_scored_as_one_pass_scores_it(engine, tokenizer, model):
    sample = find_task("continuation").opened(tokens=400, tokenizer=tokenizer).sample(EVALUATION_SEED)
    exam = Examination(engine, sample, "later")
    context, gold = (tokenizer.encode(text, add_special_tokens=False) for text in (sample.context, sample.turns[0].gold))
    with torch.no_grad():
        likely = model(torch.tensor([context + gold])).logits[0, len(context) - 1 : -1].log_softmax(-1)
        wanted = -likely.gather(-1, torch.tensor(gold)[:, None]).mean()
        greedy = model.generate(
            torch.tensor([context]),
            do_sample=False,
            max_new_tokens=examination.GREEDY_TOKENS,
            eos_token_id=[],
            pad_token_id=0,
        )
    assert exam.uncompressed.nll == pytest.approx(float(wanted), rel=5e-3) and exam.uncompressed.right == [1.0]
    assert exam.greedy == greedy[0, len(context) :].tolist()
    cut = exam.ask(create_method("random", keep=0.2))
    assert cut.nll != exam.uncompressed.nll and 0 <= cut.right[0] < 1

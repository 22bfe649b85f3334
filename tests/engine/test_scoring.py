"""Continuations are scored as a loop over their tokens scores them."""

import pytest
import torch
from helpers.bench_tools import tiny

from laconic.engine.engine import Engine, Request
from laconic.method import create_method
from laconic.session import compress

CONTINUATIONS = [[11, 12, 13], [40], [11, 12, 14], [11, 12, 13]]


@pytest.fixture(scope="module")
def engine():
    return Engine(*tiny())


@pytest.fixture(scope="module")
def context(engine):
    return engine.tokenizer.encode("The code for falcon is 4815263. " * 8)


def plainly(model, context, continuation):
    """One pass of the stock model over everything."""
    with torch.no_grad():
        logits = model(torch.tensor([[*context, *continuation]])).logits[0, len(context) - 1 : -1]
    wanted = torch.tensor(continuation)
    likely = logits.log_softmax(-1).gather(-1, wanted[:, None])[:, 0]
    return likely, bool((logits.argmax(-1) == wanted).all())


@pytest.mark.parametrize("methods", [None, (), [create_method("snapkv", keep=1.0)]], ids=["stock", "none", "neutral"])
def test_without_compression_scores_are_the_models(engine, context, methods):
    found = engine.score(context, CONTINUATIONS, Request(methods=methods)).scores
    assert len(found) == len(CONTINUATIONS)
    for continuation, score in zip(CONTINUATIONS, found, strict=True):
        likely, greedy = plainly(engine.model, context, continuation)
        torch.testing.assert_close(score.log_likelihoods, likely, atol=1e-4, rtol=0)
        assert score.greedy is greedy


def test_what_greedy_decoding_says_is_greedy(engine, context):
    out = engine.model.generate(torch.tensor([context]), max_new_tokens=3, do_sample=False)[0, len(context) :].tolist()
    (right, wrong), methods = [out, [*out[:2], out[2] + 1]], ()
    scores = engine.score(context, [right, wrong], Request(methods=methods)).scores
    assert [score.greedy for score in scores] == [True, False]


def test_the_context_is_compressed_and_continuations_are_stored_whole(engine, context):
    method, lengths = create_method("random", keep=0.25), []
    with torch.no_grad(), compress(engine.model, method) as session:
        logits = engine.model(torch.tensor([context])).logits[0, -1:]
        with session.hold():
            more = engine.model(torch.tensor([[11, 12]]), past_key_values=session.cache).logits[0]
    slow = torch.cat([logits, more]).log_softmax(-1).gather(-1, torch.tensor([[11], [12], [13]]))[:, 0]
    found = engine.score(
        context, CONTINUATIONS, Request(methods=[method]), at_prompt=lambda session: lengths.append(session.stats.entries)
    )
    torch.testing.assert_close(found.scores[0].log_likelihoods, slow, atol=1e-4, rtol=0)
    assert lengths == [[len(context) // 4] * 2]  # called once, with the context alone in the cache
    assert torch.equal(found.scores[0].log_likelihoods, found.scores[3].log_likelihoods)  # neighbours do not matter
    assert (found.scores[0].log_likelihoods - plainly(engine.model, context, [11, 12, 13])[0]).abs().max() > 1e-3


def test_a_method_has_no_part_in_a_continuation(engine, context):
    """A method that shortens the stream of every prompt leaves all tokens of a continuation in it."""
    method = create_method("fastkv:tsp_rate=0.5,window=2", keep=0.5)
    ids = list(range(20, 40))
    with torch.no_grad(), compress(engine.model, method) as session:
        logits = engine.model(torch.tensor([context])).logits[0, -1:]
        with session.hold():
            more = engine.model(torch.tensor([ids[:-1]]), past_key_values=session.cache).logits[0]
    slow = torch.cat([logits, more]).log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])
    found = engine.score(context, [ids], Request(methods=[method])).scores[0].log_likelihoods
    torch.testing.assert_close(found, slow[:, 0], atol=1e-4, rtol=0)


def test_the_context_is_read_once(engine, context):
    lengths = []
    with engine.model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    ):
        engine.score(context, CONTINUATIONS, Request())
    n = len(context)
    assert lengths == [n, 2, 2, 2]  # the single token needs no pass


def test_probabilities_in_another_precision(engine, context):
    score = engine.score(context, [[11, 12]], Request(), dtype=torch.float64).scores[0]
    assert score.log_likelihoods.dtype == torch.float64


def test_a_missed_budget_is_a_note(engine, context):
    class Misses(type(create_method("random"))):
        def targets(self, *args):
            return [2 * target for target in super().targets(*args)]

    assert "was asked to keep" in engine.score(context, [[11]], Request(methods=[Misses(keep=0.25)])).notes[0]

"""Methods' own work: it is timed and counted for the cache that it is done for, prompt and decoding apart."""

from types import SimpleNamespace

import pytest
import torch

import laconic
from laconic.measure import work
from laconic.measure.figures import Figures, early_work

PROMPT, DECODING = SimpleNamespace(prefill=True), SimpleNamespace(prefill=False)


def product():
    return torch.ones(2, 3) @ torch.ones(3, 5)  # 60 FLOPs


def test_prompt_and_decoding_are_counted_apart_and_timed_together(monkeypatch):
    times = iter([10.0, 10.5, 20.0, 22.0])
    monkeypatch.setattr(work.time, "perf_counter", lambda: next(times))
    figures = Figures()
    with figures.work(PROMPT):
        product()
        product()
    product()  # not a method's
    with figures.work(DECODING):
        product()
    assert (figures.method_flops, figures.method_decode_flops, figures.compress_seconds) == (120, 60, 2.5)


def test_nothing_is_counted_where_nobody_asks():
    figures = Figures(counting=False)
    with figures.work(PROMPT):
        product()
    assert figures.method_flops == 0 and figures.compress_seconds > 0


def test_work_that_fails_is_over():
    figures = Figures()
    with pytest.raises(ZeroDivisionError), figures.work(PROMPT):
        product()
        raise ZeroDivisionError
    product()
    assert figures.method_flops == 60


def test_early_work_goes_to_the_pass_that_follows_once():
    with early_work():
        product()
    first, second = Figures(), Figures()
    first.take_early()
    second.take_early()
    assert (first.method_flops, second.method_flops) == (60, 0)


# -- in sessions -------------------------------------------------------------------------------------------------------
def test_a_session_counts_when_it_is_asked_to(llama, prompt):
    ids = prompt(1, 40)
    for asked in (False, True):
        with laconic.compress(llama, "snapkv:keep=0.5,window=4", count_flops=asked) as session:
            llama(ids)
        stats = session.stats
        window = 4 * 2 * 4 * 4 * 40 * 8  # layers x 2 FLOPs x query heads x window x entries x head dimension
        assert stats.method_flops == (window if asked else None)
        assert stats.prompt_flops == (stats.prefill_flops + window if asked else None)
        assert stats.flops_share == (pytest.approx(stats.prompt_flops / stats.prefill_flops_full) if asked else None)
        assert stats.as_dict()["method_flops"] == stats.method_flops


def test_without_methods_there_is_no_work_of_theirs(llama, prompt):
    with laconic.compress(llama) as session:
        llama(prompt(1, 40))
    assert session.stats.method_flops == 0 and session.stats.prompt_flops == session.stats.prefill_flops


def test_a_pass_that_was_not_counted_leaves_the_sum_unknown(llama, prompt):
    with laconic.compress(llama, "h2o:keep=0.5") as session:
        llama(prompt(1, 40))
    cache = session.cache
    with laconic.compress(llama, "h2o:keep=0.5", count_flops=True) as session:
        llama(prompt(1, 1), past_key_values=cache)
        assert session.stats.method_flops is None is session.stats.answer_flops
        llama(prompt(1, 40))  # a cache of its own
        assert session.stats.method_flops > 0


def test_what_decoding_takes_is_no_cost_of_the_prompt(llama, prompt):
    with laconic.compress(llama, "h2o:keep=0.5", count_flops=True) as session:
        llama(prompt(1, 40))
        before = session.stats
        llama(prompt(1, 1), past_key_values=session.cache)
    after = session.stats
    assert before.method_decode_flops == 0 < after.method_decode_flops and after.method_flops == before.method_flops
    assert after.answer_flops == after.decode_flops + after.method_decode_flops

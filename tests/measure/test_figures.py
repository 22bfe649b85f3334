"""What a cache has cost: prompt and decoded tokens in turns, and what is left of them after a rollback."""

import torch

import laconic.measure.figures as figures_of_module
from laconic.measure.cost import FlopCounter, Shape
from laconic.measure.figures import Figures, forget_early
from laconic.step import Step

SHAPE = Shape((10, 10), 4, 2, 8, 7, 4)


def step(start, length):
    return Step(start, length, torch.arange(start, start + length)[None], [start + length])


def two_turns():
    figures, seen = Figures(), 0
    for length in (20, 1, 1, 10, 1, 1, 1):
        figures.ran(step(seen, length), 1.0 if length > 1 else 0.25, None)
        seen += length
    return figures


def test_turns_add_up():
    figures = two_turns()
    assert figures.stretches == [(False, 20), (True, 2), (False, 10), (True, 3)] and figures.decoded == 5
    assert (figures.prefill_seconds, figures.decode_seconds) == (2.0, 1.25)


def test_a_rollback_takes_the_latest_tokens_whatever_they_were():
    for tokens, left in [
        (0, [(False, 20), (True, 2), (False, 10), (True, 3)]),
        (2, [(False, 20), (True, 2), (False, 10), (True, 1)]),
        (3, [(False, 20), (True, 2), (False, 10)]),
        (14, [(False, 20), (True, 1)]),
        (35, []),
        (99, []),
    ]:
        figures = two_turns()
        figures.rolled_back(tokens)
        assert figures.stretches == left, tokens


def test_the_head_counts_where_there_is_one():
    figures = Figures(FlopCounter(SHAPE))
    figures.ran(step(0, 4), 0.0, torch.zeros(2, 3, 5))
    figures.ran(step(4, 1), 0.0, torch.zeros(2, 1, 5))
    assert (figures.flops.prefill, figures.flops.decode) == (2 * 7 * 2 * 3, 2 * 7 * 2 * 1)
    figures.ran(step(5, 1), 0.0, None)
    assert figures.flops.decode == 2 * 7 * 2


def test_early_work_that_no_pass_followed_is_forgotten():
    early = figures_of_module._EARLY.figures
    early.method_flops = 7
    forget_early()
    figures = Figures()
    figures.take_early()
    assert figures.method_flops == 0
    early.method_flops = 7
    figures.take_early()
    assert (figures.method_flops, early.method_flops) == (7, 0)

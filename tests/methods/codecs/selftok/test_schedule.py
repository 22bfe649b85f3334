"""Which tokens are visible when, against slow references."""

import math

import pytest
import torch

from laconic.methods.codecs.selftok.schedule import Schedule

TOY = Schedule(16)
PAPER = Schedule(512, ends=(0.2, 0.4, 0.6, 0.8, 1.0), owned=(192, 184, 72, 48, 16))
ALL = [TOY, PAPER, Schedule(16, "uniform"), Schedule(16, "lognormal"), Schedule(16, "all")]


def slow(schedule, t):
    """k(t), stage by stage."""
    if schedule.kind == "all":
        return schedule.tokens
    if schedule.kind == "uniform":
        return schedule.tokens * t
    if schedule.kind == "lognormal":
        if t in (0, 1):
            return schedule.tokens * t
        logit = math.log(t / (1 - t))
        return math.ceil(schedule.tokens * 0.5 * (1 + math.erf(logit / math.sqrt(2))))
    start, before = 0.0, 0
    for end, owned in zip(schedule.ends, schedule.owned, strict=True):
        if t <= end:
            return before + owned * (t - start) / (end - start)
        start, before = end, before + owned
    raise AssertionError


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: f"{s.kind}-{s.tokens}")
def test_1_visible_tokens_are_those_of_the_table_grow_with_noise_and_are_all_of_them_in_pure_noise(schedule):
    times = [i / 997 for i in range(998)]
    seen = schedule.visible(torch.tensor(times, dtype=torch.float64))
    for t, row in zip(times, seen, strict=True):
        assert row.tolist() == [i <= slow(schedule, t) for i in range(schedule.tokens)], t
    assert bool((seen[1:] >= seen[:-1]).all()) and bool(seen[-1].all())


def test_1_the_papers_examples():
    counts = PAPER.count(torch.tensor([0.0, 0.2, 0.6, 1.0]))
    assert counts.tolist() == pytest.approx([0, 192, 448, 512], abs=1e-3)


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: f"{s.kind}-{s.tokens}")
def test_9_the_mean_over_times_of_visible_times_weight_is_one_for_all(schedule):
    times = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    share = torch.stack([schedule.visible(part).double().mean(0) for part in times.chunk(20)]).mean(0)
    torch.testing.assert_close(share * schedule.weights().double(), torch.full_like(share, 0.5), atol=2e-3, rtol=0)


def test_the_coarse_ones_come_first():
    assert TOY.order().tolist() == list(range(15, -1, -1))
    assert bool((TOY.first().diff() > 0).all())


@pytest.mark.parametrize(
    "wrong",
    [{"owned": (10, 5)}, {"ends": (0.5, 0.9)}, {"ends": (1.0, 0.5)}, {"ends": (1.0,)}, {"owned": (16, 0)}, {"owned": ()}],
)
def test_stages_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match="must be positive and add up to tokens=16"):
        Schedule(16, **wrong)
    with pytest.raises(ValueError, match="choose one of stages, uniform"):
        Schedule(16, "steps")

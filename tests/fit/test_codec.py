"""Trainings of codecs: which samples a step draws, and what its optimizer moves."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from laconic.fit.codec import CodecFit
from laconic.tasks.task import EVALUATION_SEED


@dataclass(kw_only=True)
class Fit(CodecFit):
    method: ClassVar[str] = "test"


def test_steps_draw_samples_of_their_own_and_none_for_evaluation():
    fit = Fit(batch_size=24, seed=3)
    assert [fit.first(step) for step in range(5)] == [(3 * 7919 + step) * 24 for step in range(5)]
    assert all(0 <= Fit(seed=seed).first(step) <= EVALUATION_SEED - 33 for seed in (0, 9) for step in range(0, 10**6, 9973))


def test_what_is_frozen_is_not_given_to_the_optimizer():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[0].requires_grad_(False)
    (group,) = Fit(lr=0.5).optimizer(net).param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in net[1].parameters()}
    assert (group["lr"], group["weight_decay"], group["betas"]) == (0.5, 1e-4, (0.9, 0.99))

"""Coconut's training: stages, what is left of a chain, and the loss against a run without a cache."""

import random

import pytest
import torch
import torch.nn.functional as F
from helpers.thinking import TOKENIZER, tiny_thinker

from laconic.fit.trainer import Trainer
from laconic.methods.reasoning.coconut.fit import CoconutFit, after


@pytest.fixture(scope="module")
def fit():
    made = CoconutFit(batch_size=4, per_step=2)
    made.build(tiny_thinker(), TOKENIZER)
    return made


def slow_loss(fit, drawn, steps, thoughts):
    """Row by row, everything read anew for every thought."""
    losses = []
    for x in drawn:
        states = fit.thinker.embedded(torch.tensor([x.prompt]))
        for _ in range(thoughts):
            states = torch.cat([states, fit.thinker.states(states)[:, -1:]], 1)
        parts = TOKENIZER.decode(x.thought).split(";")[:-1]
        rest = TOKENIZER.encode("".join(f"{part};" for part in parts[steps:]), add_special_tokens=False) + x.answer
        read = torch.cat([states, fit.thinker.embedded(torch.tensor([rest]))], 1)
        logits = fit.thinker.logits(fit.thinker.states(read))[0, states.shape[1] - 1 : -1]
        losses.append(F.cross_entropy(logits, torch.tensor(rest), reduction="none"))
    return torch.cat(losses).mean()


@pytest.mark.parametrize("stage", [1, 3])
def test_the_loss_and_its_gradient_are_those_of_a_run_without_a_cache(fit, stage):
    drawn = fit.solutions.draw(random.Random(stage), 4)
    weight = fit.thinker.decoder["layers"][0].mlp.down_proj.weight
    found, wanted = fit.loss((drawn, stage)), slow_loss(fit, drawn, stage, 2 * stage)
    torch.testing.assert_close(found, wanted)
    (got,), (gold,) = torch.autograd.grad(found, [weight]), torch.autograd.grad(wanted, [weight])
    torch.testing.assert_close(got, gold, rtol=1e-3, atol=1e-6)


def test_steps_go_one_by_one_from_the_front():
    assert after([5, 9, 6, 7, 9, 8, 9], 9, 1) == [6, 7, 9, 8, 9]
    assert after([5, 9, 6, 7, 9, 8, 9], 9, 2) == [8, 9]
    assert after([5, 9, 6, 7, 9, 8, 9], 9, 3) == after([5, 9], 9, 4) == []


def test_stages_are_equally_long():
    fit = CoconutFit(steps=10, stages=3)
    assert [fit.stage(step) for step in range(10)] == [1, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_a_training_leaves_the_model_as_it_is_and_learns(tmp_path):
    model = tiny_thinker()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    lines = []
    fit = CoconutFit(batch_size=8, steps=12, stages=1, log_every=6, lr=3e-3)
    artifact = Trainer(fit, model, TOKENIZER, tmp_path, lines.append).run()
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    first, last = (float(line.split("loss ")[1].split()[0]) for line in (lines[0], lines[-1]))
    assert last < first
    assert artifact.data == {"thoughts": 1}

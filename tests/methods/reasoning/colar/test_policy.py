"""CoLaR's second stage: what is drawn, how likely it was, and what the loss does with it."""

import random

import pytest
import torch
from helpers.thinking import MARK, TOKENIZER, tiny_thinker

from laconic.artifact import Artifact, numbers
from laconic.fit.chains import Solutions
from laconic.fit.trainer import Trainer
from laconic.methods.reasoning.colar.fit import CoLaRFit
from laconic.methods.reasoning.colar.policy import log_probabilities, policy_loss, roll_out
from laconic.methods.reasoning.colar.thinker import LatentThinker

END = TOKENIZER.eos_token_id


@pytest.fixture(scope="module")
def model():
    return tiny_thinker(eos_token_id=END)


@pytest.fixture(scope="module")
def thinker(model):
    torch.manual_seed(4)
    return LatentThinker(model, 16)


@pytest.fixture(scope="module")
def rows(thinker):
    prompts = [x.prompt for x in Solutions(TOKENIZER, {"terse": 1}).draw(random.Random(0), 12)]
    torch.manual_seed(0)
    return roll_out(thinker, prompts, MARK, END, most=70, longest=6)


def test_rows_think_then_answer_from_the_mark_to_the_end(rows):
    answered = [row for row in rows if row.answer]
    assert answered and len(answered) < len(rows)  # some reach the mark, others think until they are given up
    for row in rows:
        assert len(row.vectors) == len(row.densities) >= 1 and len(row.answer) == len(row.likely)
        assert row.answer or len(row.vectors) == 70
    for row in answered:
        assert row.answer[0] == MARK and END not in row.answer[:-1]
        assert row.answer[-1] == END or len(row.answer) == 6


def test_5_what_was_drawn_is_as_likely_as_it_was_when_it_was_drawn(thinker, rows):
    densities, likely = log_probabilities(thinker, rows)
    for i, row in enumerate(rows):
        torch.testing.assert_close(densities[i, : len(row.densities)], torch.stack(row.densities), atol=1e-4, rtol=1e-4)
        if row.answer:
            torch.testing.assert_close(likely[i, : len(row.likely)], torch.stack(row.likely), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("gain", [1.0, -1.0])
def test_a_step_makes_what_was_better_likelier_and_what_was_worse_less_so(model, rows, gain):
    torch.manual_seed(4)
    thinker = LatentThinker(model, 16)
    drawn = next(row for row in rows if row.answer)
    before = sum(x.detach().mean() for x in log_probabilities(thinker, [drawn]))
    policy_loss(thinker, [drawn], torch.tensor([gain])).backward()
    with torch.no_grad():
        for p in thinker.parameters():
            if p.grad is not None:
                p -= 1e-3 * p.grad
    after = sum(x.detach().mean() for x in log_probabilities(thinker, [drawn]))
    assert gain * (after - before) > 0


def test_7_equal_rewards_change_nothing(thinker):
    fit = CoLaRFit(start="unused", group=4, most=5)
    fit.tokenizer, fit.thinker, fit.terms, fit.model = TOKENIZER, thinker, [], thinker.lm
    loss = fit.explored(Solutions(TOKENIZER, {"terse": 1}).draw(random.Random(0), 2), 2)
    assert fit.terms == [(0.0, pytest.approx(5, abs=2))] and not loss.requires_grad and float(loss) == 0


def test_the_second_stage_begins_with_the_first(model, tmp_path):
    thinker = LatentThinker(model, 16)
    data = {"speeds": [2, 4], "width": 16, "deviation": thinker.deviation}
    paths = {name: str(tmp_path / f"{name}.safetensors") for name in ("nll", "mse")}
    for name, path in paths.items():
        Artifact.of("colar", "trained", model, data, numbers(thinker), {"objective": name}).save(path)
    settings = {"batch_size": 2, "group": 2, "most": 6, "steps": 2, "speeds": (2,)}
    artifact = Trainer(CoLaRFit(start=paths["nll"], **settings), model, TOKENIZER).run()
    assert artifact.data["speeds"] == [2] and artifact.data["width"] == 16
    name = "decoder.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(artifact.tensors[name].float(), thinker.state_dict()[name], atol=0.05, rtol=0.01)
    with pytest.raises(ValueError, match="objective=nll"):
        CoLaRFit(start=paths["mse"], **settings).build(model, TOKENIZER)
    with pytest.raises(ValueError, match=r"speeds=\[3\] are not among"):
        CoLaRFit(start=paths["nll"], speeds=(3,)).build(model, TOKENIZER)
